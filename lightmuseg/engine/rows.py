"""The map of a slide on disk while it grows: rows of cells, each whole or absent."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.files import write_whole

from .plan import Plan

# what zipfile raises on a file that a power failure cut short
_BROKEN = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


# Of what is in a row's file: a run that was begun with another is not gone on with.
FORMAT = 3


class RowStore:
    """Rows of cells, from the top, as files in a folder; and the class map that they make together.

    Attributes:
        width, height: of the map in output pixels.
        mpp: um per output pixel.
        downsample: level-0 pixels of the slide to one of the output.
        class_names: of the indices from 1.
    """

    def __init__(self, folder: Path, plan: Plan, mpp: float, downsample: float, class_names: Sequence[str]) -> None:
        self.width, self.height = plan.width, plan.height
        self.mpp = mpp
        self.downsample = downsample
        self.class_names = tuple(class_names)
        self._folder = folder
        self._ends = [min(edge, plan.height) for edge in plan.edges_y[1:]]
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._ends)

    def save(
        self, row: int, classes: np.ndarray, entropy: np.ndarray, probabilities: np.ndarray | None,
        record: dict[str, Any],
    ) -> None:  # fmt: skip
        """Keep a row: class indices uint8 [h, width], the samples of entropy in it, as uint8 of every fourth pixel of
        every fourth row of the map, probabilities uint8 [C, h, width], and plain values of it."""
        arrays = {
            "classes": classes,
            "entropy": entropy,
            "record": np.frombuffer(json.dumps(record).encode(), np.uint8),
        }
        if probabilities is not None:
            arrays["probabilities"] = probabilities

        def write(temporary: Path) -> None:
            # the fastest level packs maps well enough
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
                for name, array in arrays.items():
                    with packed.open(f"{name}.npy", "w", force_zip64=True) as member:
                        # not write_array, which makes copies that leave holes in the heap
                        array = np.ascontiguousarray(array)
                        header = np.lib.format.header_data_from_array_1_0(array)
                        np.lib.format.write_array_header_1_0(member, header)
                        member.write(array.data)

        write_whole(self._path(row), write)

    def finished(self) -> int:
        """The number of rows, from the top, that are there and whole."""
        for row in range(len(self)):
            try:
                with zipfile.ZipFile(self._path(row)) as packed:
                    if packed.testzip() is not None:
                        return row
            except _BROKEN:
                return row
        return len(self)

    def records(self) -> Iterator[dict[str, Any]]:
        """The plain values kept with each row."""
        for row in range(len(self)):
            yield json.loads(self._load(row, "record").tobytes())

    def bands(self, height: int) -> Iterator[np.ndarray]:
        """Class indices uint8 [<= height, width], from the top."""
        return self._bands("classes", height)

    def entropy_bands(self, height: int) -> Iterator[np.ndarray]:
        """Samples of entropy uint8 [<= height, samples in a row], from the top; 254 is the greatest, 255 unknown."""
        return self._bands("entropy", height)

    def probability_bands(self, height: int) -> Iterator[np.ndarray]:
        """Probabilities uint8 [C, <= height, width], from the top; 255 is 1."""
        return self._bands("probabilities", height)

    def _path(self, row: int) -> Path:
        return self._folder / f"{row:06d}.npz"

    def _load(self, row: int, name: str) -> np.ndarray:
        with np.load(self._path(row), allow_pickle=False) as arrays:
            return arrays[name]

    def _bands(self, name: str, height: int) -> Iterator[np.ndarray]:
        """Bands of as many lines, whatever rows have; in memory are one of each."""
        waiting, count = None, 0
        for row in range(len(self)):
            lines = self._load(row, name)
            while lines.shape[-2]:
                if waiting is None:
                    waiting = np.empty((*lines.shape[:-2], height, lines.shape[-1]), lines.dtype)
                taken = lines[..., : height - count, :]
                waiting[..., count : count + taken.shape[-2], :] = taken
                count += taken.shape[-2]
                lines = lines[..., taken.shape[-2] :, :]
                if count == height:
                    yield waiting
                    waiting, count = None, 0
        if waiting is not None:
            yield waiting[..., :count, :]
