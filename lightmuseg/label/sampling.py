"""MONAI Label's tasks of active learning: scores, and strategies that choose by them."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import shapely
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from lightmuseg.errors import InputError
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers import SlideReader

from . import FINAL, METHODS
from .bundle_network import BundleNetwork
from .datastore import VersionedDatastore
from .faults import fault_line
from .label_file import read_ground_truth
from .patches import MOST_PATCHES, fitted, next_patch, random_patch, score_patches
from .prediction import opened
from .request_checks import PatchRequest

logger = logging.getLogger(__name__)

# Seconds for which a patch that was handed out is not handed out again.
TAKEN_SECONDS = 600
# which image is next; but "patch" chooses by the least sure patch of all, annotated or not
STRATEGIES = {
    "random": "an image by chance",
    "first": "the first image by name",
    **{method: f"the image with the greatest mean {method}" for method in METHODS},
    "patch": "the patch of all slides with the greatest entropy",
}


class Uncertainty(ScoringMethod):
    """Score every image of the datastore by how unsure the network is of it and of its patches.

    Args:
        method: "entropy" or "epistemic"; the scores are the image's info under this key.
        current: gives the network in use.
        most: patches of a slide to look at.
    """

    def __init__(self, method: str, current: Callable[[], BundleNetwork], most: int = MOST_PATCHES) -> None:
        kind = "mean predictive entropy" if method == "entropy" else "mutual information by Monte Carlo dropout"
        super().__init__(f"{kind} of each patch")
        self._method, self._current, self._most = method, current, most

    def stale(self, datastore: VersionedDatastore) -> list[str]:
        """Images without a score by the network in use."""
        used = self._current().sha256
        return [
            image
            for image in datastore.list_images()
            if scores_of(datastore.get_image_info(image), self._method).get("weights_sha256") != used
        ]

    def __call__(self, request: Mapping[str, Any], datastore: VersionedDatastore) -> dict[str, Any]:
        network, todo = self._current(), self.stale(datastore)
        failed = {}
        for number, image in enumerate(todo, start=1):
            if self._current().sha256 != network.sha256:
                print(f"{self._method}: other weights came into use; the rest is for another run", flush=True)
                break
            try:
                scored = score_patches(datastore.image_path(image), network, self._method, self._most)
                line = f"{image}: {scored['score']:.3f}"
            except InputError as error:
                line = failed[image] = fault_line(error, datastore.image_path(image).parent)
                scored = {"score": -1, "patches": [], "weights_sha256": network.sha256, "error": line}
            datastore.update_image_info(image, {self._method: scored})
            print(f"{self._method}: {number} of {len(todo)}: {line}", flush=True)
        return {"scored": len(todo) - len(failed), "failed": failed, "weights_sha256": network.sha256}


def scores_of(info: Mapping[str, Any], method: str) -> dict[str, Any]:
    """What :class:`Uncertainty` wrote into an image's info; empty where something else stands there."""
    scores = info.get(method)
    patches = scores.get("patches") if isinstance(scores, dict) else None
    good = isinstance(patches, list) and all(_are_numbers(patch, 5) for patch in patches)
    return scores if good and _are_numbers([scores.get("score")], 1) else {}


def recently_taken(datastore: VersionedDatastore, image: str) -> list[list[float]]:
    """x, y and time of each patch that somebody was sent to within ten minutes."""
    taken = datastore.get_image_info(image).get("taken")
    taken = [one for one in taken if _are_numbers(one, 3)] if isinstance(taken, list) else []
    return [one for one in taken if time.time() - one[2] < TAKEN_SECONDS]


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(one) in (int, float) for one in values)


class Sampling(Strategy):
    """Which image, or which patch of the image that a request names, to annotate next; see :class:`PatchRequest`.

    Every answer has a patch: ``bbox`` [x, y, width, height], as QuPath draws it, ``location`` and ``size``, in level-0
    pixels. Once there are scores a patch is not handed out that is annotated already, nor one that somebody was sent
    to within ten minutes.

    Args:
        name: one of the strategies.
        current: gives the network in use.
    """

    def __init__(self, name: str, current: Callable[[], BundleNetwork]) -> None:
        super().__init__(STRATEGIES[name])
        self._name, self._current = name, current
        # whose scores choose the patch; else it is chosen by chance
        self._method = "entropy" if name == "patch" else name if name in METHODS else None

    def __call__(self, request: Mapping[str, Any], datastore: VersionedDatastore) -> dict[str, Any] | None:
        wanted = PatchRequest.of(request)
        for image in self._candidates(wanted.image, datastore):
            try:
                answer = self._answer(image, wanted.patch_size, datastore)
            except InputError as error:
                if wanted.image:
                    raise
                # one broken file does not keep the annotator from the others
                logger.warning("%s: is left out: %s", image, error)
                continue
            if answer is not None:
                return answer
        return None

    def _candidates(self, image: str, datastore: VersionedDatastore) -> list[str]:
        """Images, the next one first."""
        if image:
            return [image]
        images = datastore.list_images() if self._name == "patch" else datastore.get_unlabeled_images()
        if self._name == "random":
            return random.sample(images, len(images))
        return sorted(images, key=lambda one: (-self._score(one, datastore), one))

    def _score(self, image: str, datastore: VersionedDatastore) -> float:
        scored = self._scored(image, datastore)
        if self._name == "patch":
            return scored["patches"][0][4] if scored.get("patches") else -1
        return scored.get("score", -1)

    def _scored(self, image: str, datastore: VersionedDatastore) -> dict[str, Any]:
        return scores_of(datastore.get_image_info(image), self._method) if self._method else {}

    def _answer(self, image: str, size: tuple[int, int] | None, datastore: VersionedDatastore) -> dict[str, Any] | None:
        network = self._current()
        scored, taken = self._scored(image, datastore), recently_taken(datastore, image)
        with opened(datastore.image_path(image), network) as reader:
            if scored:
                patch = next_patch(scored, annotated_area(datastore, image, reader, network), taken)
            else:
                patch = random_patch(ModelView(reader, network.mpp), network.tile_size)
            if patch is None:
                return None
            level0 = reader.levels[0]
            box = fitted(patch, size or (int(patch[2]), int(patch[3])), (level0.width, level0.height))
        if scored:
            datastore.update_image_info(image, {"taken": [*taken, [*patch[:2], int(time.time())]]})
        return {
            "id": image, "bbox": [box.x0, box.y0, box.width0, box.height0], "location": [box.x0, box.y0],
            "size": [box.width0, box.height0], "score": patch[4], "weights_sha256": network.sha256,
        }  # fmt: skip


def annotated_area(
    datastore: VersionedDatastore, image: str, reader: SlideReader, network: BundleNetwork
) -> shapely.Geometry | None:
    """What an image's final label annotates, in level-0 pixels; None where it has no label."""
    label = datastore.get_label_uri(image, FINAL)
    if not label:
        return None
    path, info = Path(label), datastore.get_label_info(image, FINAL)
    return read_ground_truth(path, path.name, reader, network.label_codes, info).area
