"""MONAI Label's task of training."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.train import TrainTask

from lightmuseg.errors import InputError

from . import FINAL
from .bundle_network import BundleNetwork
from .datastore import VersionedDatastore
from .model_versions import ModelStore
from .request_checks import TrainingOptions
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
        return TrainingOptions().model_dump()

    def stats(self) -> dict[str, Any]:
        return {"versions": self._store.facts()}

    def __call__(self, request: Mapping[str, Any], datastore: VersionedDatastore) -> dict[str, Any]:
        """Train, or with ``use_version`` of 0 or more bring that version into use; see :class:`TrainingOptions`.

        Raises:
            InputError: for an option that cannot be, or too few labels.
        """
        options = TrainingOptions.of(request)
        if options.use_version >= 0:
            self._store.use(options.use_version)
            return {"version": options.use_version, "used": True}
        self._work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self._work))
        labelled = [
            LabelledImage(
                image, datastore.image_path(image), Path(datastore.get_label_uri(image, FINAL)),
                datastore.get_label_info(image, FINAL),
            )
            for image in sorted(datastore.get_labeled_images())
        ]  # fmt: skip
        try:
            return self._train(labelled, folder, options)
        finally:
            # the pixels are the slides' own
            for path in folder.glob("*.png"):
                path.unlink()
            shutil.rmtree(folder / "dataset", ignore_errors=True)

    def _train(self, labelled: Sequence[LabelledImage], folder: Path, options: TrainingOptions) -> dict[str, Any]:
        network = self._current()
        splits = Counter(tile["split"] for tile in prepare(labelled, network, folder, options.held_out)["tiles"])
        count, held_out = splits["train"], splits["val"]
        if not (count and held_out):
            raise InputError(f"{count} tiles to learn from, {held_out} held out; annotate more patches.")
        print(f"training on {count} tiles of {len(labelled)} images, {held_out} held out", flush=True)
        dataset = folder / "dataset"
        values = options.model_dump(exclude={"use_version", "held_out"})
        values["batch_size"] = min(options.batch_size, count)
        before = dice_on_held_out(network, network.weights, dataset, folder / "before")
        weights = fine_tune(network, dataset, folder / "training", **values)
        after = dice_on_held_out(network, weights, dataset, folder / "after")
        facts = {
            "dice_before": _number(before), "dice": _number(after), "tiles": count, "held_out_tiles": held_out,
            "images": len(labelled), "from_sha256": network.sha256, "options": values, "log": folder.name,
        }  # fmt: skip
        better = after > before
        version = self._store.add(weights, facts, use=better)
        fate = "comes into use" if better else "is kept beside; what was in use stays"
        print(f"version {version}: Dice {after:.3f} held out, {before:.3f} before: it {fate}", flush=True)
        return {"version": version, "used": better, **facts}


def _number(dice: float) -> float | None:
    """None for NaN, which JSON has not."""
    return None if math.isnan(dice) else round(dice, 6)
