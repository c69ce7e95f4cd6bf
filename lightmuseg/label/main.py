"""The app that ``monailabel start_server --app`` takes, which loads this file by its path: outside of the package."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import processes

from lightmuseg import __version__
from lightmuseg.errors import InputError, report_faults_in_one_line, user_fault
from lightmuseg.label import METHODS
from lightmuseg.label.datastore import VersionedDatastore
from lightmuseg.label.fine_tuning import FineTuning
from lightmuseg.label.label_file import read_ground_truth
from lightmuseg.label.model_versions import ModelStore, VersionedModel
from lightmuseg.label.parent import NICE_BACKGROUND, follow_server
from lightmuseg.label.prediction import opened
from lightmuseg.label.request_checks import MAX_IMAGE_BYTES, MAX_LABEL_BYTES
from lightmuseg.label.sampling import STRATEGIES, Sampling, Uncertainty
from lightmuseg.label.segmentation import Segmentation
from lightmuseg.models.model import Model
from lightmuseg.models.packaged import NAMED

logger = logging.getLogger(__name__)

# of weights of the user's, --conf weights
OWN = "own"
BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
STATE = ".lightmuseg"
SECONDS_BETWEEN_LOOKS, SECONDS_AFTER_FAULT = 3, 60


class LightMuSegApp(MONAILabelApp):
    """Active learning with a LightMuSeg bundle.

    Its models are those that the package names, each by its name, and the user's weights as "own". Each has versions of
    its own, and a training goes on from the one that it is asked for.

    Args:
        app_dir: folder of this file.
        studies: folder of images and slides.
        conf: ``bundle``, a bundle's root; ``weights``, of a model of the user's; ``variants``, names of the bundle's
            configs with commas between that those weights were trained with; ``scores``, name of the model whose
            uncertainty says what to annotate next (the user's, else the first); ``patches``, of a slide to score.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        # of the processes that train and score
        report_faults_in_one_line()
        follow_server(NICE_BACKGROUND)
        if studies.startswith(("http://", "https://")):
            raise InputError(f"{studies}: is no folder; give one that holds the slides.")
        self._patches = int(conf.get("patches", 64))
        self._state = Path(studies) / STATE
        self._models = _models(conf, self._state / "models")
        scores = conf.get("scores") or next(iter(self._models))
        if scores not in self._models:
            raise InputError(f"--conf scores {scores}: is no model here; give one of {', '.join(self._models)}.")
        # whose scores say what is next, and by which labels and images are checked
        self._leading = self._models[scores]
        super().__init__(
            app_dir, studies, dict(conf), name="LightMuSeg", version=__version__,
            description="Tissue segmentation of breast-cancer slides, with active learning",
        )  # fmt: skip
        # the version in use when somebody stopped the scoring
        self._unscored: int | None = None
        # MONAI Label's own way asks the server by HTTP, which refuses while it is scoring or where it asks who one is
        self._auto_update_scoring = False

    def init_datastore(self) -> VersionedDatastore:
        return VersionedDatastore(
            self.studies, list(settings.MONAI_LABEL_DATASTORE_FILE_EXT), settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            self._check_image, self._check_label,
        )  # fmt: skip

    def _check_image(self, path: Path, name: str) -> None:
        with _named(path, name, MAX_IMAGE_BYTES):
            opened(path, self._leading.network()).close()

    def _check_label(self, image: Path, label: Path, name: str, info: dict[str, Any]) -> None:
        network = self._leading.network()
        with _named(label, name, MAX_LABEL_BYTES), opened(image, network) as reader:
            read_ground_truth(label, name, reader, network.label_codes, info)

    def init_infers(self) -> dict[str, Segmentation]:
        return {name: Segmentation(model.network) for name, model in self._models.items()}

    def init_trainers(self) -> dict[str, FineTuning]:
        work = self._state / "trainings"
        return {name: FineTuning(model.network, model.store, work) for name, model in self._models.items()}

    def init_scoring_methods(self) -> dict[str, Uncertainty]:
        return {method: Uncertainty(method, self._leading.network, self._patches) for method in METHODS}

    def init_strategies(self) -> dict[str, Sampling]:
        return {name: Sampling(name, self._leading.network) for name in STRATEGIES}

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Segment ``request["image"]``, a file that the server chose; see Segmentation."""
        name, facts = self._infers[request["model"]](request)
        return {"file": name, "params": facts}

    infer_wsi = infer

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer at once with what is scored by now."""
        answer = self._strategies[request["strategy"]](request, self.datastore())
        return {**answer, "path": str(self.datastore().image_path(answer["id"]))} if answer else {}

    def on_init_complete(self) -> None:
        super().on_init_complete()
        threading.Thread(target=self._keep_scores_fresh, name="scores", daemon=True).start()

    def pause_scoring(self) -> None:
        """Start no scoring by the weights in use, unless somebody asks for it."""
        self._unscored = self._leading.store.in_use()

    def resume_scoring(self) -> None:
        """Score again what has no score."""
        self._unscored = None

    def _keep_scores_fresh(self) -> None:
        """Score, in processes of their own, what is new or was scored by other weights."""
        looks_in_vain = 0
        while True:
            tasks, _ = AsyncTask.status("scoring", all=True)
            current = [task for task in tasks or () if task["status"] in ("SUBMITTED", "RUNNING")]
            failed = bool(tasks) and tasks[-1]["status"] == "ERROR"
            # one whose process could not be started stays as if it were to come
            looks_in_vain = looks_in_vain + 1 if current and not processes("scoring") else 0
            if looks_in_vain * SECONDS_BETWEEN_LOOKS > SECONDS_AFTER_FAULT:
                for task in current:
                    task["status"] = "ERROR"
            try:
                stale = (method for method, one in self._scoring_methods.items() if one.stale(self.datastore()))
                if not current and self._unscored != self._leading.store.in_use() and (method := next(stale, None)):
                    self.async_scoring(method)
            except Exception as error:
                # whatever it was, later scores are still to lead the annotators
                logger.warning("nothing is scored: %s", error, exc_info=user_fault(error) is None)
                failed = True
            time.sleep(SECONDS_AFTER_FAULT if failed else SECONDS_BETWEEN_LOOKS)

    def model_file(self, model: str, validate: bool = True) -> str | None:
        return str(self._models[model].network().weights) if model in self._models else None


def _models(conf: Mapping[str, str], folder: Path) -> dict[str, VersionedModel]:
    """The models that are offered, by name, with their versions in ``folder``; the user's is the first.

    What servers of one model left in ``folder`` itself is the user's. A label image counts the classes of the user's
    model, else of the model with most, whose first ones are the other's.
    """
    bundle = Path(conf.get("bundle") or BUNDLE)
    first = {name: bundle / "models" / file for name, file in NAMED.items()}
    variants = [name for name in conf.get("variants", "").split(",") if name]
    earlier = folder / "v0000.pt"
    if conf.get("weights") or earlier.is_file():
        first = {OWN: Path(conf.get("weights") or earlier), **first}
    elif variants:
        raise InputError(f"--conf variants {','.join(variants)}: are of weights of yours; give --conf weights too.")
    cards = {name: Model.open(weights).card for name, weights in first.items()}
    codes = cards[OWN].classes if OWN in cards else max((card.classes for card in cards.values()), key=len)
    return {
        name: VersionedModel(
            bundle,
            ModelStore(folder if name == OWN else folder / name, weights),
            variants if name == OWN else (),
            codes,
        )
        for name, weights in first.items()
    }


@contextmanager
def _named(path: Path, name: str, most: int) -> Iterator[None]:
    """Refuse a file of more than ``most`` bytes, and have messages name it as it was sent, not where it lies."""
    if (size := path.stat().st_size) > most:
        raise InputError(f"{name}: {size / 1e6:.0f} MB, more than {most / 1e6:.0f}; split or simplify it.")
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from error
