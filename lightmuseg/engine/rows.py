"""The map of a slide while it grows: rows of cells, each whole or absent, on disk or in memory."""

from __future__ import annotations

import json
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.files import write_whole

from .plan import Plan

# what zipfile raises on a file that a power failure cut short
_BROKEN = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
# Of what is in a row's file: a run that started with another is not resumed.
FORMAT = 4


class UnfilledError(Exception):
    """Rows will not all come: what is made of them is of no use."""


class Rows(ABC):
    """Rows of cells, from the top, and the class map that they make together.

    Args:
        plan: of the tiles.
        mpp: um per output pixel.
        downsample: level-0 pixels of the slide to one of the output.
        class_names: of the indices from 1.

    Attributes:
        width, height: of the map in output pixels.
    """

    def __init__(self, plan: Plan, mpp: float, downsample: float, class_names: Sequence[str]) -> None:
        self.width, self.height = plan.width, plan.height
        self.mpp, self.downsample = mpp, downsample
        self.class_names = tuple(class_names)
        self._count = len(plan.ys_m)

    def __len__(self) -> int:
        return self._count

    @abstractmethod
    def finished(self) -> int:
        """The number of rows, from the top, that are there and whole."""

    @abstractmethod
    def _keep(self, row: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store the arrays of a row, which change afterwards."""

    @abstractmethod
    def _array(self, row: int, name: str) -> np.ndarray:
        """One of the arrays of a row."""

    def save(self, row: int, arrays: Mapping[str, np.ndarray], record: dict[str, Any]) -> None:
        """Keep a row; rows come in order.

        Args:
            row: its number.
            arrays: "classes", indices uint8 [h, width]; "entropy" of every fourth pixel of every fourth row of the map,
                uint8, 254 the greatest, 255 unknown; where they are wanted, "probabilities" uint8 [C, h, width],
                of which 255 is 1.
            record: plain values.
        """
        self._keep(row, {**arrays, "record": np.frombuffer(json.dumps(record).encode(), np.uint8)})

    def records(self) -> Iterator[dict[str, Any]]:
        """The plain values kept with each row."""
        return (json.loads(self._array(row, "record").tobytes()) for row in range(len(self)))

    def bands(self, height: int, name: str = "classes") -> Iterator[np.ndarray]:
        """The rows as bands of so many lines, [..., <= height, width], from the top; in memory are one of each.

        Args:
            height: of a band; the last one may have less.
            name: of the array; see :meth:`save`.
        """
        waiting, count = None, 0
        for row in range(len(self)):
            lines = self._array(row, name)
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


class MemoryRows(Rows):
    """Rows in memory, for small pictures."""

    def __init__(self, plan: Plan, mpp: float, downsample: float, class_names: Sequence[str]) -> None:
        super().__init__(plan, mpp, downsample, class_names)
        self._rows: list[dict[str, np.ndarray]] = []

    def finished(self) -> int:
        """See :class:`Rows`."""
        return len(self._rows)

    def _keep(self, row: int, arrays: Mapping[str, np.ndarray]) -> None:
        self._rows.append({name: array.copy() for name, array in arrays.items()})

    def _array(self, row: int, name: str) -> np.ndarray:
        return self._rows[row][name]


class RowStore(Rows):
    """Rows as files in a folder, which is made; the arguments after it are those of :class:`Rows`."""

    def __init__(self, folder: Path, plan: Plan, mpp: float, downsample: float, class_names: Sequence[str]) -> None:
        super().__init__(plan, mpp, downsample, class_names)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._changed = threading.Condition()
        self._whole, self._grows, self._failed = 0, False, False

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Other threads may read rows meanwhile, and wait for those that are to come.

        Where it ends with an error, whoever reads on gets :class:`UnfilledError`.
        """
        self._grows = True
        try:
            yield
        except BaseException:
            self._failed = True
            raise
        finally:
            with self._changed:
                self._grows = False
                self._changed.notify_all()

    def require_filling(self) -> None:
        """Raise :class:`UnfilledError` where the filling of the rows ended with an error."""
        if self._failed:
            raise UnfilledError

    def finished(self) -> int:
        """See :class:`Rows`; a file that a power failure cut short is not whole."""
        count = next((row for row in range(len(self)) if not self._is_whole(row)), len(self))
        self._say(count)
        return count

    def _is_whole(self, row: int) -> bool:
        try:
            with zipfile.ZipFile(self._path(row)) as packed:
                return packed.testzip() is None
        except _BROKEN:
            return False

    def _say(self, whole: int) -> None:
        with self._changed:
            self._whole = whole
            self._changed.notify_all()

    def _path(self, row: int) -> Path:
        return self._folder / f"{row:06d}.npz"

    def _keep(self, row: int, arrays: Mapping[str, np.ndarray]) -> None:
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
        self._say(row + 1)

    def _array(self, row: int, name: str) -> np.ndarray:
        with self._changed:
            self._changed.wait_for(lambda: row < self._whole or not self._grows)
        self.require_filling()
        with np.load(self._path(row), allow_pickle=False) as arrays:
            return arrays[name]
