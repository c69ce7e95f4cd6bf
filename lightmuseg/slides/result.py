"""The results of a slide, in memory."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.errors import InputError
from lightmuseg.text_files import read_csv, read_json

from .finished import MAPS, MEASUREMENTS, MOST_RECORD_BYTES, RECORD


class SlideResult:
    """What was found on a slide, read from its folder of results when it is asked for.

    Args:
        folder: of the results of one slide, as ``lightmuseg segment`` writes it.

    Attributes:
        folder: where all files are.
        record: run.json: slide, um/px, options, model, warnings, versions.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record: dict[str, Any] = read_json(self.folder / RECORD, "segment the slide again", MOST_RECORD_BYTES)

    @property
    def class_names(self) -> list[str]:
        """Of the map's indices from 1."""
        return list(self.record["options"]["class_names"])

    @property
    def warnings(self) -> list[str]:
        """What makes the results doubtful, in one line each."""
        return list(self.record["warnings"])

    @cached_property
    def measurements(self) -> dict[str, float | None]:
        """Values by measure, in the units of measurements.csv; None where one is not defined."""
        rows = read_csv(self.folder / MEASUREMENTS)
        return {row["measure"]: float(row["value"]) if row["value"] else None for row in rows}

    @cached_property
    def regions(self) -> dict[str, Any]:
        """The classes' outlines, a GeoJSON FeatureCollection in level-0 pixels of the slide (x, y)."""
        regions: dict[str, Any] = read_json(self.folder / "regions.geojson", "segment the slide again", 2**31)
        return regions

    @cached_property
    def classes(self) -> np.ndarray:
        """The map, class indices uint8 [H, W] at ``record["map_mpp"]`` um/px; 255 could not be read."""
        import tifffile

        path = next((path for name in MAPS if (path := self.folder / name).is_file()), None)
        if path is None:
            raise InputError(f"{self.folder}: holds no {' or '.join(MAPS)}; segment the slide again.")
        classes: np.ndarray = tifffile.imread(path, level=0)
        return classes

    def _repr_png_(self) -> bytes:
        """The overlay, which notebooks show."""
        return (self.folder / "overlay.png").read_bytes()
