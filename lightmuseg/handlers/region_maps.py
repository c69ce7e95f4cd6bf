"""Tiles put together to the regions they were cut from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from lightmuseg.classes import IGNORED
from lightmuseg.files import write_whole
from lightmuseg.pictures import compare, save_class_map
from lightmuseg.text_files import write_csv

logger = logging.getLogger(__name__)
PICTURE_SIDE = 900


@dataclass(eq=False)
class RegionMaps:
    """Stitch the tiles' probabilities to regions, score each region whole, and show it beside its annotation.

    Where tiles overlap, the mean of their probabilities counts. Writes ``regions.csv`` (a row a region and class, and
    ``all`` regions' pixels pooled), ``regions/<region>.png`` (picture, annotation, prediction) and
    ``regions/<region>_classes.png`` (class indices at full resolution). Tiles of a region must follow one another, as
    they do in a prepared dataset; attach it to an evaluator that takes one tile a batch, in one process.

    Args:
        output_dir: folder of these files.
        class_names: of the channels of ``probability`` and ``mask``.
        image_mean, image_deviation: of the normalisation, to show the picture as it was.
    """

    output_dir: str | Path
    class_names: Sequence[str]
    image_mean: Sequence[float]
    image_deviation: Sequence[float]
    _region: _Region | None = field(default=None, init=False)
    _counts: dict[str, np.ndarray] = field(default_factory=dict, init=False)

    def attach(self, engine: Engine) -> None:
        if idist.get_world_size() > 1:
            if idist.get_rank() == 0:
                logger.warning("No maps of whole regions: their tiles are spread over processes. Evaluate with one.")
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._region, self._counts = None, {}

    def _add(self, engine: Engine) -> None:
        mean, deviation = (np.float32(values)[:, None, None] for values in (self.image_mean, self.image_deviation))
        for item, output in zip(engine.state.batch, engine.state.output):
            if self._region is None or self._region.name != item["roi"]:
                self._write_region()
                self._region = _Region(item, len(self.class_names))
            image, probability, mask = (
                maps.detach().float().cpu().numpy() for maps in (item["image"], output["probability"], output["mask"])
            )
            picture = (image * deviation + mean).clip(0, 1) * 255
            self._region.add(int(item["x"]), int(item["y"]), picture, probability, mask)

    def _finish(self, engine: Engine) -> None:
        self._write_region()
        regions = {**self._counts, "all": np.sum(list(self._counts.values()), axis=0)}
        rows = [row for name, counts in regions.items() for row in scores(name, counts, self.class_names)]
        write_csv(Path(self.output_dir) / "regions.csv", rows)

    def _write_region(self) -> None:
        if self._region is None:
            return
        region, predicted, truth = self._region, self._region.predicted(), self._region.truth
        if region.name in self._counts:
            raise ValueError(f"the tiles of {region.name} do not follow one another.")
        annotated, size = truth != IGNORED, len(self.class_names) + 1
        pairs = truth[annotated].astype(int) * size + predicted[annotated]
        self._counts[region.name] = np.bincount(pairs, minlength=size * size).reshape(size, size)
        path = Path(self.output_dir) / "regions" / region.name
        picture = compare(region.pixels, truth, predicted, self.class_names, PICTURE_SIDE)
        write_whole(f"{path}.png", picture.save)
        write_whole(f"{path}_classes.png", lambda target: save_class_map(target, predicted, self.class_names))


class _Region:
    """A region that is being filled tile by tile; ``truth`` is 255 where nothing is annotated or no tile lies."""

    def __init__(self, item: Mapping[str, Any], classes: int) -> None:
        self.name = item["roi"]
        self.height, self.width = size = int(item["region_height"]), int(item["region_width"])
        self.pixels = np.full((*size, 3), 255, np.uint8)
        self.truth = np.full(size, IGNORED, np.uint8)
        self.sums = np.zeros((classes, *size), np.float32)
        self.tiles = np.zeros(size, np.float32)

    def add(self, x: int, y: int, picture: np.ndarray, probability: np.ndarray, mask: np.ndarray) -> None:
        # a tile larger than its region is filled up behind it
        picture, probability, mask = (
            maps[:, : self.height - y, : self.width - x] for maps in (picture, probability, mask)
        )
        place = slice(y, y + mask.shape[1]), slice(x, x + mask.shape[2])
        self.sums[(slice(None), *place)] += probability
        self.tiles[place] += 1
        self.pixels[place] = picture.transpose(1, 2, 0).round()
        classes = np.where((mask == 1).any(axis=0), (mask == 1).argmax(axis=0) + 1, 0)
        self.truth[place] = np.where(mask[0] == IGNORED, IGNORED, classes)

    def predicted(self) -> np.ndarray:
        """Class indices [H, W]: the most probable of everything else and the classes."""
        means = self.sums / np.maximum(self.tiles, 1)
        others = 1 - means.sum(axis=0, keepdims=True)
        return np.concatenate([others, means]).argmax(axis=0).astype(np.uint8)


def scores(name: str, counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of Dice, IoU, sensitivity, precision and pixel accuracy a class, empty where there is nothing to score.

    Args:
        name: of the region.
        counts: pixels by true class (rows) and predicted class (columns), the background first.
        class_names: of the indices from 1.
    """
    rows = []
    for index, class_name in enumerate(class_names, start=1):
        both, true, found = counts[index, index], counts[index].sum(), counts[:, index].sum()
        ratios = {
            "dice": (2 * both, true + found),
            "iou": (both, true + found - both),
            "sensitivity": (both, true),
            "precision": (both, found),
            "pixel_accuracy": (counts.sum() - true - found + 2 * both, counts.sum()),
        }
        values = {key: f"{part / whole:.6f}" if whole else "" for key, (part, whole) in ratios.items()}
        rows.append({"region": name, "class": class_name, "pixels": int(true), **values})
    return rows
