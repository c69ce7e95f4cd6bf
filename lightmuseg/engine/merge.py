"""Logits of overlapping tiles become one map, row by row, in bounded memory.

The columns' and rows' starts cut the output into cells: cell (i, j) reaches from the corner of tile (i, j) to those of
its neighbours. It is final once its own tile has come, because later tiles begin further right or below; so only the
strips that reach into the row below are kept.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import numpy as np

from .plan import Plan


def blending_window(tile_size: int, stride: int) -> np.ndarray:
    """Weights float32 [tile / stride, tile / stride] of a tile's logits: those of MONAI's inferer, mode "gaussian"."""
    distances = np.arange(tile_size, dtype=np.float32) - (tile_size - 1) / 2
    along = np.exp(-0.5 * (distances / (0.125 * tile_size)) ** 2)
    # the inferer takes the nearest weight too where a network's output is smaller than its tile
    along = along[stride // 2 :: stride]
    return np.maximum(np.outer(along, along), 1e-3).astype(np.float32)


class Merger:
    """Weighted mean of the logits of overlapping tiles.

    Args:
        plan: of the tiles.
        stride: model pixels to one of the logits; the plan's factor is a multiple of it.
        channels: C of the logits.
        finish: called with (row, column, logits, missing) for each cell that a tile reaches, rows and columns in order:
            float32 [C, h, w] at the logits' resolution, and bool [h, w] where no tile of those that should have come
            has been read.
    """

    def __init__(
        self, plan: Plan, stride: int, channels: int, finish: Callable[[int, int, np.ndarray, np.ndarray], None]
    ) -> None:
        self._side = plan.tile_size // stride
        self._window = blending_window(plan.tile_size, stride)
        self._channels = channels
        scale = plan.factor // stride
        self._edges_x = [scale * edge for edge in plan.edges_x]
        self._edges_y = [scale * edge for edge in plan.edges_y]
        self._starts_x = [start // stride for start in plan.xs_m]
        self._starts_y = [start // stride for start in plan.ys_m]
        self._finish = finish
        # of each cell the parts of tiles in it: rows and columns of the cell, logits * window, window
        self._parts: dict[tuple[int, int], list] = {}
        # the same cells as a heap: the next to be finished is found without a look at the others
        self._pending: list[tuple[int, int]] = []

    def add(self, tile: tuple[int, int], logits: np.ndarray | None, unread: np.ndarray | None = None) -> None:
        """Take the logits float32 [C, h, w] of the next tile; None for one that could not be read.

        Of one that was read in part, bool [h, w] ``unread`` is True where it was not.
        """
        self._finish_before(tile)
        window = self._window if unread is None else np.where(unread, np.float32(0), self._window)
        weighted = None if logits is None else logits * window
        for i, rows, tile_rows in self._overlaps(self._starts_y[tile[0]], self._edges_y, tile[0]):
            for j, columns, tile_columns in self._overlaps(self._starts_x[tile[1]], self._edges_x, tile[1]):
                if (i, j) not in self._parts:
                    self._parts[i, j] = []
                    heapq.heappush(self._pending, (i, j))
                if weighted is not None:
                    part = weighted[:, tile_rows, tile_columns]
                    # a copy, so that the part below does not keep the whole tile
                    part = part if (i, j) == tile else part.copy()
                    self._parts[i, j].append((rows, columns, part, window[tile_rows, tile_columns]))

    def close(self) -> None:
        """Finish what is left, after the last tile."""
        self._finish_before((len(self._edges_y), 0))

    def _overlaps(self, start: int, edges: list[int], index: int) -> list[tuple[int, slice, slice]]:
        """The cells that tile ``index`` reaches along one axis: number, its part of the cell, that of the tile."""
        end = start + self._side
        cells = itertools.takewhile(lambda cell: edges[cell] < end, range(index, len(edges) - 1))
        spans = ((cell, edges[cell], min(edges[cell + 1], end)) for cell in cells)
        return [(cell, slice(0, high - low), slice(low - start, high - start)) for cell, low, high in spans]

    def _finish_before(self, tile: tuple[int, int]) -> None:
        while self._pending and self._pending[0] < tile:
            row, column = heapq.heappop(self._pending)
            height = self._edges_y[row + 1] - self._edges_y[row]
            width = self._edges_x[column + 1] - self._edges_x[column]
            total = np.zeros((self._channels, height, width), np.float32)
            weight = np.zeros((height, width), np.float32)
            for rows, columns, part, window in self._parts.pop((row, column)):
                total[:, rows, columns] += part
                weight[rows, columns] += window
            missing = weight == 0
            np.divide(total, weight, out=total, where=~missing)
            self._finish(row, column, total, missing)
