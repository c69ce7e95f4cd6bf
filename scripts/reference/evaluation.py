"""One model on the pictures that it has not seen, as its users get it; each figure is kept and never measured twice."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reference import disturbances
from reference.pictures_at_hand import GLASS_SLIDES, Annotated, annotated, glass_of, tumor_of
from reference.scores import counts_of, mean_tile_dice, places, reliability

from lightmuseg import Segmenter
from lightmuseg.classes import IGNORED, indices_of
from lightmuseg.models.model import Model
from lightmuseg.provenance import sha256_of
from lightmuseg.runtimes import Runtime
from lightmuseg.text_files import read_json, write_json
from lightmuseg.wsi.readers.opening import open_slide

SCALES, OVERLAPS = (0.25, 0.3, 0.36, 0.4, 0.45, 0.5, 0.6), (0.0, 0.125, 0.25, 0.5)
# Crops of this side, this far from the picture's edge, in the picture's pixels; and how wide their edge is.
CROP, AROUND, EDGE = 800, 100, 8
SIDES = {"left": np.s_[:, :EDGE], "right": np.s_[:, -EDGE:], "upper": np.s_[:EDGE], "lower": np.s_[-EDGE:]}
FLIPS = ((slice(None), slice(None)), np.s_[::-1, :], np.s_[:, ::-1], np.s_[::-1, ::-1])
Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Condition:
    """How a picture is read; what is None is the model's and the package's own.

    Attributes:
        kind, strength: of a disturbance of the picture.
        mpp: um/px at which the model reads.
        overlap: of tiles.
        flips: the mean probability of the picture and its three mirror images.
    """

    kind: str = ""
    strength: float = 0.0
    mpp: float | None = None
    overlap: float | None = None
    flips: bool = False

    def __str__(self) -> str:
        if self.kind:
            return f"{self.kind} {self.strength:g}"
        if self.flips:
            return "flips"
        values = (("mpp", self.mpp), ("overlap", self.overlap))
        return ", ".join(f"{name} {value:g}" for name, value in values if value is not None) or "as it is"


AS_IT_IS = Condition()
# what can be measured on each picture, and the conditions that it asks for
MEASURES = {
    "dice": [AS_IT_IS], "flips": [Condition(flips=True)], "scales": [Condition(mpp=mpp) for mpp in SCALES],
    "overlaps": [Condition(overlap=overlap) for overlap in OVERLAPS],
    "robustness": [Condition(kind, at) for kind in disturbances.STRENGTHS for at in disturbances.strengths(kind)],
}  # fmt: skip


class Evaluation:
    """Figures of a model.

    Args:
        model: a name or path.
        data: folder of the pictures; see :mod:`reference.pictures_at_hand`.
        kept: folder in which figures are kept.
        runtime: that runs the network, by name or made; None for the package's choice.
        batch_size, workers: as of the segmenter.
    """

    def __init__(
        self, model: str, data: str | Path, kept: str | Path, runtime: str | Runtime | None = None, batch_size: int = 4,
        workers: int = 2,
    ) -> None:  # fmt: skip
        self.model, self.data = Model.open(model), Path(data)
        self.card, (self.tumor, self.tumor_index) = self.model.card, tumor_of(self.model.card)
        name = runtime if isinstance(runtime, str) else "default" if runtime is None else runtime.info.kind
        self._kept = Path(kept) / f"{self.model.sha256[:12]} {name}"
        self._options = {"batch_size": batch_size, "workers": workers}
        self._runtime = runtime
        self._tiles = 0

    def measure(self, patient: str, measure: str) -> dict[str, Figures]:
        """Figures of one of :data:`MEASURES`, or of "edges", on a patient's picture, by condition."""
        place = annotated(self.data, patient)
        if measure == "edges":
            return {"edges": self._once(place, "edges", functools.partial(self._edges, place))}
        return {
            str(condition): self._once(place, str(condition), functools.partial(self._agreement, place, condition))
            for condition in MEASURES[measure]
        }

    def glass(self) -> dict[str, Figures]:
        """Pixels of glass, and those called tumor with the tissue mask and without, by slide."""
        figures = {}
        for name, mpp in GLASS_SLIDES.items():
            slide = self.data / name
            key = f"{slide.stem} {sha256_of(slide)[:8]}"
            figures[slide.stem] = self._kept_or(f"{key}, glass", functools.partial(self._glass, slide, mpp))
        return figures

    def segment(self, pixels: np.ndarray, mpp: float, condition: Condition = AS_IT_IS) -> tuple[np.ndarray, np.ndarray]:
        """Class indices uint8 [H, W] and probabilities uint8 [C, H, W], as :meth:`.Segmenter.predict_probabilities`."""
        if condition.kind:
            pixels, mpp = disturbances.disturbed(pixels, mpp, condition.kind, condition.strength)
        self._make_runtime(pixels[: 2 * CROP, : 2 * CROP], mpp)
        segmenter = self._segmenter(condition.mpp, overlap=condition.overlap)
        if not condition.flips:
            return segmenter.predict_probabilities(pixels, mpp)
        total = np.float32(0)
        for flip in FLIPS:
            values = segmenter.predict_probabilities(np.ascontiguousarray(pixels[flip]), mpp)[1]
            total = total + values[(slice(None), *flip)] / np.float32(len(FLIPS))
        return indices_of(total / 255, 0.5), total.round().astype(np.uint8)

    def worst_and_best(self, patients: list[str], side: int = 1024) -> list[tuple[Figures, Annotated]]:
        """The places of least and of most tumor Dice among those of which a tenth or more is annotated as tumor."""
        found = []
        for patient in patients:
            place = annotated(self.data, patient)
            found += [
                (one, place)
                for one in self._once(place, f"places {side}", functools.partial(self._places, place, side))
            ]
        ordered = sorted(found, key=lambda one: one[0]["dice"])
        return [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered

    def _segmenter(self, mpp: float | None, **options: Any) -> Segmenter:
        model = self.model if mpp is None else Model.open(self.model.path, mpp=mpp)
        return Segmenter(model, runtime=self._runtime, **self._options, **options)

    def _make_runtime(self, pixels: np.ndarray, mpp: float) -> None:
        """The runtime, proven on these pixels; it counts the tiles that it is given."""
        if not isinstance(self._runtime, (str, type(None))):
            return
        segmenter = self._segmenter(None)
        segmenter.predict(pixels, mpp)
        made = segmenter.runtime()

        def counted(tiles: np.ndarray) -> np.ndarray:
            self._tiles += len(tiles)
            return made(tiles)

        self._runtime = dataclasses.replace(made, call=counted)

    def _once(self, place: Annotated, what: str, measured: Callable[[], Any]) -> Any:
        key = f"{place.patient} {sha256_of(place.image)[:8]}{sha256_of(place.mask)[:8]}, {what}"
        return self._kept_or(key, measured)

    def _kept_or(self, key: str, measured: Callable[[], Any]) -> Any:
        path = self._kept / f"{key}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, measured())
        return read_json(path, "remove it")

    def _agreement(self, place: Annotated, condition: Condition) -> Figures:
        labels, pixels = place.labels(self.card), place.pixels()
        self._make_runtime(pixels[: 2 * CROP, : 2 * CROP], place.mpp)
        self._tiles = 0
        classes, levels = self.segment(pixels, place.mpp, condition)
        scored = place.scored(self.card)
        counts = {name: counts_of(classes, labels, index) for name, index in scored.items()}
        figures: Figures = {"counts": counts, "network_tiles": self._tiles}
        if condition != AS_IT_IS:
            return figures
        figures["tiles"] = {name: mean_tile_dice(classes, labels, index) for name, index in scored.items()}
        known = labels != IGNORED
        one = len(levels) == 1
        tumor = levels[0 if one else self.tumor_index][known]
        figures["tumor"] = reliability(tumor, labels[known] == self.tumor_index)
        if len(scored) == len(self.card.classes):
            sure = np.maximum(tumor, 255 - tumor) if one else levels.max(axis=0)[known]
            figures["confidence"] = reliability(sure, classes[known] == labels[known])
        return figures

    def _edges(self, place: Annotated) -> Figures:
        """Tumor in the outermost pixels of crops, alone and with what surrounds them, by side."""
        pixels = place.pixels()
        whole = self.segment(pixels, place.mpp)[0] == self.tumor_index
        sums = {side: [0, 0] for side in SIDES}
        rows, columns = (range(AROUND, length - AROUND - CROP + 1, CROP) for length in pixels.shape[:2])
        for y, x in ((y, x) for y in rows for x in columns):
            box = np.s_[y : y + CROP, x : x + CROP]
            alone = self.segment(pixels[box], place.mpp)[0] == self.tumor_index
            for side, edge in SIDES.items():
                for number, found in enumerate((alone, whole[box])):
                    sums[side][number] += int(np.count_nonzero(found[edge]))
        return {"crops": len(rows) * len(columns), "sides": sums}

    def _glass(self, slide: Path, mpp: float | None) -> Figures:
        with open_slide(slide, mpp=mpp) as reader:
            area, level = glass_of(reader), reader.levels[0]
        figures: Figures = {}
        for name, tissue_mask in (("network", False), ("with the tissue mask", True)):
            with tempfile.TemporaryDirectory() as folder:
                segmenter = self._segmenter(None, tissue_mask=tissue_mask)
                classes = segmenter(slide, folder, mpp=mpp).classes
            step0 = level.width / classes.shape[1]
            glass = area.mask(0, 0, step0, classes.shape[1], classes.shape[0])
            figures |= {"glass": int(glass.sum()), name: int((glass & (classes == self.tumor_index)).sum())}
        return figures

    def _places(self, place: Annotated, side: int) -> list[Figures]:
        labels = place.labels(self.card)
        classes, _ = self.segment(place.pixels(), place.mpp)
        found = []
        for box in places(labels.shape, side):
            counts = counts_of(classes[box], labels[box], self.tumor_index)
            if counts[0] + counts[2] >= 0.1 * labels[box].size:
                score = 2 * counts[0] / (2 * counts[0] + counts[1] + counts[2])
                found.append({"dice": score, "x": box[1].start, "y": box[0].start, "side": side})
        return found
