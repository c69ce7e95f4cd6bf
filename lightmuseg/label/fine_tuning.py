"""MONAI Label's task of training."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.train import TrainTask

from lightmuseg.errors import InputError

from . import FINAL
from .bundle_network import BundleNetwork
from .datastore import VersionedDatastore
from .model_versions import ModelStore
from .training import LabelledImage, dice_on_held_out, fine_tune, prepare


class FineTuning(TrainTask):
    """Train on what is annotated; the new weights come into use where they are better on what is held out.

    Args:
        current: gives the network in use.
        store: of its versions.
        work: folder for the datasets and logs of trainings, one for each.
    """

    def __init__(self, current: Callable[[], BundleNetwork], store: ModelStore, work: Path) -> None:
        super().__init__("Fine-tune on the labels; better weights come into use, the others stay")
        self._current, self._store, self._work = current, store, work

    def config(self) -> dict[str, Any]:
        return {
            "max_epochs": 20,
            "learning_rate": 1e-4,
            "batch_size": 3,
            "held_out": 0.2,
            "seed": 42,
            "use_version": -1,
        }

    def stats(self) -> dict[str, Any]:
        return {"versions": self._store.facts()}

    def options(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a request says of the config's options, and what the config says of the others.

        Raises:
            InputError: for a value that cannot be.
        """
        options = {name: request.get(name, value) for name, value in self.config().items()}
        for name, value in self.config().items():
            if type(options[name]) is not type(value) and not (type(value) is float and type(options[name]) is int):
                raise InputError(f"{name} {options[name]!r}: give a number such as {value}.")
        for name in ("max_epochs", "learning_rate", "batch_size"):
            if options[name] <= 0:
                raise InputError(f"{name} {options[name]}: give a number above 0.")
        if not 0 < options["held_out"] < 1:
            raise InputError(f"held_out {options['held_out']}: give a share between 0 and 1.")
        if options["seed"] < 0:
            raise InputError(f"seed {options['seed']}: give a number of 0 or more.")
        return options

    def __call__(self, request: Mapping[str, Any], datastore: VersionedDatastore) -> dict[str, Any]:
        """Train, or with ``use_version`` of 0 or more bring that version into use.

        Raises:
            InputError: for an option that cannot be, or too few labels.
        """
        options = self.options(request)
        version = options.pop("use_version")
        if version >= 0:
            self._store.use(version)
            return {"version": version, "used": True}
        network = self._current()
        self._work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self._work))
        try:
            return self._train(network, datastore, folder, options.pop("held_out"), options)
        finally:
            # the pixels are the slides' own
            for path in folder.glob("*.png"):
                path.unlink()
            shutil.rmtree(folder / "dataset", ignore_errors=True)

    def _train(
        self,
        network: BundleNetwork,
        datastore: VersionedDatastore,
        folder: Path,
        held_out: float,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        labelled = []
        for image in sorted(datastore.get_labeled_images()):
            label = Path(datastore.get_label_uri(image, FINAL))
            labelled.append(
                LabelledImage(image, datastore.image_path(image), label, datastore.get_label_info(image, FINAL))
            )
        manifest = prepare(labelled, network, folder, held_out)
        splits = [tile["split"] for tile in manifest["tiles"]]
        count = {split: splits.count(split) for split in ("train", "val")}
        if not all(count.values()):
            raise InputError(f"{count['train']} tiles to learn from, {count['val']} held out; annotate more patches.")
        print(f"training on {count['train']} tiles of {len(labelled)} images, {count['val']} held out", flush=True)
        dataset = folder / "dataset"
        options["batch_size"] = min(options["batch_size"], count["train"])
        before = dice_on_held_out(network, network.weights, dataset, folder / "before")
        weights = fine_tune(network, dataset, folder / "training", **options)
        after = dice_on_held_out(network, weights, dataset, folder / "after")
        better = after > before
        facts = {
            "dice_before": round(before, 6), "dice": round(after, 6), "tiles": count["train"],
            "held_out_tiles": count["val"], "images": len(labelled), "from_sha256": network.sha256, "options": options,
            "log": folder.name,
        }  # fmt: skip
        facts = json.loads(json.dumps(facts).replace("NaN", "null"))
        version = self._store.add(weights, facts, use=better)
        says = "comes into use" if better else "is kept beside; what was in use stays"
        print(f"version {version}: Dice {after:.3f} held out, {before:.3f} before: it {says}", flush=True)
        return {"version": version, "used": better, **facts}
