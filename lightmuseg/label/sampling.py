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

from . import FINAL
from .bundle_network import BundleNetwork
from .datastore import VersionedDatastore
from .ground_truth import read_ground_truth
from .patches import MOST_PATCHES, fitted, next_patch, patches_of, score_patches
from .prediction import Box, opened

logger = logging.getLogger(__name__)

# Seconds for which a patch that was handed out is not handed out again.
TAKEN_SECONDS = 600


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
        images = datastore.list_images()
        scored = {one: scores_of(datastore.get_image_info(one), self._method) for one in images}
        return [one for one in images if scored[one].get("weights_sha256") != used]

    def __call__(self, request: Mapping[str, Any], datastore: VersionedDatastore) -> dict[str, Any]:
        network, todo = self._current(), self.stale(datastore)
        failed = {}
        for number, image in enumerate(todo, start=1):
            if self._current().sha256 != network.sha256:
                print(f"{self._method}: other weights came into use; the rest is for another run", flush=True)
                break
            try:
                scored = score_patches(datastore.image_path(image), network, self._method, self._most)
                datastore.update_image_info(image, {self._method: scored})
                print(f"{self._method}: {number} of {len(todo)}: {image}: {scored['score']:.3f}", flush=True)
            except InputError as error:
                # clients are not told of the server's folders
                failed[image] = str(error).replace(f"{datastore.image_path(image).parent}/", "")
                unscored = {"score": -1, "patches": [], "weights_sha256": network.sha256, "error": failed[image]}
                datastore.update_image_info(image, {self._method: unscored})
                print(f"{self._method}: {number} of {len(todo)}: {failed[image]}", flush=True)
        return {"scored": len(todo) - len(failed), "failed": failed, "weights_sha256": network.sha256}


def scores_of(info: Mapping[str, Any], method: str) -> dict[str, Any]:
    """What :class:`Uncertainty` wrote into an image's info; nothing where something else stands there."""
    said = info.get(method)
    patches = said.get("patches") if isinstance(said, dict) else None
    good = isinstance(patches, list) and all(_are_numbers(patch, 5) for patch in patches)
    return said if good and _are_numbers([said.get("score")], 1) else {}


def recently_taken(datastore: VersionedDatastore, image: str) -> list[list[float]]:
    """x, y and time of each patch that somebody was sent to within ten minutes."""
    taken = datastore.get_image_info(image).get("taken")
    taken = [one for one in taken if _are_numbers(one, 3)] if isinstance(taken, list) else []
    return [one for one in taken if time.time() - one[2] < TAKEN_SECONDS]


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(one) in (int, float) for one in values)


class Sampling(Strategy):
    """Which image, or which patch of the image that a request names, to annotate next.

    Every answer has a patch: ``bbox`` [x, y, width, height], as QuPath draws it, ``location`` and ``size``, in level-0
    pixels. A request may have ``image``, and ``patch_size`` [width, height]. Once there are scores a patch is not
    handed out that is annotated already, nor one that somebody was sent to within ten minutes.

    Args:
        description: for clients.
        order: sorts images: given the images' infos by id, the ids from the next to the last.
        method: whose scores choose the patch; None to choose by chance.
        patches_first: choose by the least sure patch of all images, annotated or not, and not by the image.
        current: gives the network in use.
    """

    def __init__(
        self,
        description: str,
        order: Callable[[Mapping[str, Mapping[str, Any]]], list[str]],
        current: Callable[[], BundleNetwork],
        method: str | None = None,
        patches_first: bool = False,
    ) -> None:
        super().__init__(description)
        self._order, self._method, self._patches_first, self._current = order, method, patches_first, current

    def __call__(self, request: Mapping[str, Any], datastore: VersionedDatastore) -> dict[str, Any] | None:
        size = request.get("patch_size")
        if size is not None and not (
            isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
        ):
            raise InputError(f"patch_size {str(size)[:80]}: give two whole numbers above 0, in level-0 pixels.")
        for image in self._candidates(request.get("image"), datastore):
            try:
                patch = self._patch(image, datastore)
            except InputError as error:
                if request.get("image"):
                    raise
                # one broken file does not keep the annotator from the others
                logger.warning("%s: is left out: %s", image, error)
                continue
            if patch is not None:
                return self._answer(image, patch, size, datastore)
        return None

    def _candidates(self, image: str | None, datastore: VersionedDatastore) -> list[str]:
        if image:
            datastore.image_path(image)
            return [image]
        ids = datastore.list_images() if self._patches_first else datastore.get_unlabeled_images()
        return self._order({one: datastore.get_image_info(one) for one in ids})

    def _patch(self, image: str, datastore: VersionedDatastore) -> list[float] | None:
        network = self._current()
        path = datastore.image_path(image)
        scored = scores_of(datastore.get_image_info(image), self._method) if self._method else {}
        if not scored:
            with opened(path, network) as reader:
                level0 = reader.levels[0]
                view = ModelView(reader, network.mpp)
                xm, ym = random.choice(patches_of(view, network.tile_size, MOST_PATCHES))
                side = network.tile_size * view.scale
                box = Box(round(xm * view.scale), round(ym * view.scale), round(side), round(side))
                width, height = min(box.width0, level0.width - box.x0), min(box.height0, level0.height - box.y0)
            return [box.x0, box.y0, width, height, None]
        return next_patch(scored, annotated_area(datastore, image, network), recently_taken(datastore, image))

    def _answer(
        self, image: str, patch: list[float], size: list[int] | None, datastore: VersionedDatastore
    ) -> dict[str, Any]:
        network = self._current()
        with opened(datastore.image_path(image), network) as reader:
            level0 = (reader.levels[0].width, reader.levels[0].height)
        wanted = (int(patch[2]), int(patch[3])) if size is None else (size[0], size[1])
        box = fitted(patch, wanted, level0)
        if patch[4] is not None:
            taken = [*recently_taken(datastore, image), [patch[0], patch[1], int(time.time())]]
            datastore.update_image_info(image, {"taken": taken})
        return {
            "id": image, "bbox": [box.x0, box.y0, box.width0, box.height0], "location": [box.x0, box.y0],
            "size": [box.width0, box.height0], "score": patch[4], "weights_sha256": network.sha256,
        }  # fmt: skip


def annotated_area(datastore: VersionedDatastore, image: str, network: BundleNetwork) -> shapely.Geometry | None:
    """Where an image's final label says something, in level-0 pixels; None where it has no label."""
    label = datastore.get_label_uri(image, FINAL)
    if not label:
        return None
    path = Path(label)
    with opened(datastore.image_path(image), network) as reader:
        info = datastore.get_label_info(image, FINAL)
        return read_ground_truth(path, path.name, reader, network.codes, info).area
