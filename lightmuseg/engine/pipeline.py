"""The slide engine: tiles are read, segmented, merged and stored, each while the others go on."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lightmuseg.areas.area import Area
from lightmuseg.classes import OTHER, UNREAD, indices_of, probabilities_of
from lightmuseg.wsi.model_view import ModelView, PartlyRead
from lightmuseg.wsi.readers.reader import UnreadablePixels

from .counts import Counts
from .entropy import STEP, UNKNOWN, Entropies, entropy_levels, samples_before
from .merge import Merger
from .plan import Plan
from .rows import Rows

if TYPE_CHECKING:
    from lightmuseg.runtimes import Runtime

# batches that wait between two stages
DEPTH = 2
T = TypeVar("T")


def fill_rows(
    view: ModelView, area: Area, plan: Plan, runtime: Runtime, store: Rows, batch_size: int, probabilities: bool,
    progress: Callable[[int, int], None] | None = None, tissue: Area | None = None,
) -> None:  # fmt: skip
    """Fill ``store`` with the rows it has not, by the network's maps of the plan's tiles.

    Batches are the same ones wherever a run begins, so that a resumed one gives the same bits.

    Args:
        view: the slide at the model's um/px.
        area: what is wanted; the map is 0 elsewhere.
        plan: of the tiles.
        runtime: the network.
        store: of the rows.
        batch_size: tiles to the network at once.
        probabilities: keep them too.
        progress: takes the number of tiles that are done and of all tiles, at first and after each batch.
        tissue: what of the area is no glass, on which the map is 0 and nothing is uncertain; None for all of it.
    """
    finished = store.finished()
    if finished == len(store):
        return
    first_row = _first_row(plan, finished)
    first = next((index for index, tile in enumerate(plan.tiles) if tile[0] >= first_row), len(plan.tiles))
    starts = range(first // batch_size * batch_size, len(plan.tiles), batch_size)
    batches = [plan.tiles[start : start + batch_size] for start in starts]
    rows = RowWriter(plan, runtime, store, area, tissue, view.scale, finished, probabilities)
    progress = progress or (lambda done, total: None)
    done = starts.start
    progress(done, len(plan.tiles))
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "merge") as merging:
        for tiles, pixels in _ahead(_read(view, plan, batches)):
            faults = [tile if isinstance(tile, UnreadablePixels) else None for tile in pixels]
            pending.append(merging.submit(rows.add, tiles, faults, _logits(runtime, pixels)))
            if len(pending) > DEPTH:
                pending.popleft().result()
            done += len(tiles)
            progress(done, len(plan.tiles))
        for future in pending:
            future.result()
        merging.submit(rows.close).result()


def _first_row(plan: Plan, finished: int) -> int:
    """The first row of tiles that reaches into the first row that is not finished."""
    begins_m = plan.edges_y[finished] * plan.factor
    return next(row for row in range(finished + 1) if plan.ys_m[row] + plan.tile_size > begins_m)


def _read(view: ModelView, plan: Plan, batches: list) -> Iterator[tuple[Any, list[np.ndarray | UnreadablePixels]]]:
    for tiles in batches:
        yield tiles, view.read_batch([plan.corner_m(tile) for tile in tiles], plan.tile_size)


def _logits(runtime: Runtime, pixels: list[np.ndarray | UnreadablePixels]) -> list[np.ndarray | None]:
    """The logits of each tile of which anything was read."""
    shown = [tile.pixels if isinstance(tile, PartlyRead) else tile for tile in pixels]
    read = [not isinstance(tile, UnreadablePixels) for tile in shown]
    logits = iter(runtime(np.stack(list(itertools.compress(shown, read)))) if any(read) else ())
    return [next(logits) if was_read else None for was_read in read]


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, made by a thread of their own a little ahead of their use."""
    items = iter(items)
    end = object()
    with ThreadPoolExecutor(1, "read") as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(DEPTH))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:
            for future in waiting:
                future.cancel()


class RowWriter:
    """Make classes of merged logits and hand each finished row to the store.

    The arguments are those of :func:`fill_rows`, and how many rows are finished.
    """

    def __init__(
        self, plan: Plan, runtime: Runtime, store: Rows, area: Area, tissue: Area | None, scale: float, finished: int,
        probabilities: bool,
    ) -> None:  # fmt: skip
        self._plan, self._store, self._area, self._tissue = plan, store, area, tissue
        self._step0 = scale * plan.factor
        self._stride = runtime.output_stride
        self._merger = Merger(plan, runtime.output_stride, runtime.out_channels, self._finish_cell)
        self._row = finished
        self._failed = False
        # by the rows of the tiles, which are ahead of those that are stored
        self._damage: defaultdict[int, dict[str, Any]] = defaultdict(lambda: {"unread": [], "finer": 0})
        # Of the highest row, for all of them: what is as wide as the slide and allocated anew for each row leaves holes
        # in the heap that small pieces settle in, gigabytes of them in the end.
        self._edges_x, self._edges_y = plan.edges_x, plan.edges_y
        highest = max(below - above for above, below in itertools.pairwise(self._edges_y))
        self._classes = np.empty((highest, plan.width), np.uint8)
        self._entropy = np.empty((-(-highest // STEP) + 1, samples_before(plan.width)), np.uint8)
        self._probabilities = np.empty((runtime.out_channels if probabilities else 0, highest, plan.width), np.uint8)
        self._begin()

    def add(
        self, tiles: Iterable[tuple[int, int]], faults: list[UnreadablePixels | None], logits: list[np.ndarray | None]
    ) -> None:
        """Take a batch: where its tiles lie, what was wrong with each, and its logits where anything of it was read."""
        if self._failed:
            # a cell of the batch before is missing: nothing that is stored now would be whole
            return
        self._failed = True
        for tile, fault, one in zip(tiles, faults, logits):
            unread = None
            if isinstance(fault, PartlyRead):
                # a pixel of the logits shows ``stride`` x ``stride`` of the model's
                unread = _squares(fault.unread, self._stride).any(axis=(-3, -1))
            if fault is not None:
                damage = self._damage[tile[0]]
                if unread is None or unread.any():
                    damage["unread"].append(list(fault.args))
                else:
                    damage["finer"] += 1
            self._merger.add(tile, one, unread)
        self._failed = False

    def close(self) -> None:
        """Store the remaining rows."""
        self._merger.close()
        self._store_until(len(self._store))

    def _begin(self) -> None:
        self._counts = Counts.of(self._store.class_names)
        self._entropies = Entropies.of(self._store.class_names)
        for array, nothing in ((self._classes, 0), (self._entropy, UNKNOWN), (self._probabilities, 0)):
            array.fill(nothing)

    def _store_until(self, row: int) -> None:
        while self._row < row:
            upper, lower = self._edges_y[self._row : self._row + 2]
            arrays = {
                "classes": self._classes[: lower - upper],
                "entropy": self._entropy[: samples_before(lower) - samples_before(upper)],
            }
            if len(self._probabilities):
                arrays["probabilities"] = self._probabilities[:, : lower - upper]
            sums = {"counts": dataclasses.asdict(self._counts), "entropies": dataclasses.asdict(self._entropies)}
            self._store.save(self._row, arrays, {**sums, **self._damage[self._row]})
            self._row += 1
            self._begin()

    def _finish_cell(self, row: int, column: int, logits: np.ndarray, missing: np.ndarray) -> None:
        if row < self._row:
            # of a row that the interrupted run had finished
            return
        self._store_until(row)
        upper, lower = self._edges_y[row : row + 2]
        left, right = self._edges_x[column : column + 2]
        height, width = lower - upper, right - left
        grid = left * self._step0, upper * self._step0, self._step0, width, height
        wanted = self._area.mask(*grid)
        if not wanted.any():
            return
        tissue = wanted if self._tissue is None else wanted & self._tissue.mask(*grid)
        values, threshold, probable = logits, 0.0, probabilities_of
        reduction = self._plan.factor // self._stride
        if reduction > 1:
            values = _squares(probabilities_of(logits), reduction).mean(axis=(-3, -1))
            missing = _squares(missing, reduction).any(axis=(-3, -1))
            threshold, probable = 0.5, np.asarray
        known = tissue & ~missing
        classes = np.where(known, indices_of(values, threshold), np.uint8(UNREAD))
        classes[~tissue] = OTHER
        self._classes[:height, left:right] = classes
        self._counts.add(classes, wanted, tissue)
        # of the map's own every fourth pixel, so that it is the same wherever cells and rows begin
        sampled = slice(-upper % STEP, None, STEP), slice(-left % STEP, None, STEP)
        levels = entropy_levels(probable(values[(slice(None), *sampled)]), known[sampled])
        self._entropy[: len(levels), samples_before(left) : samples_before(right)] = levels
        self._entropies.add(classes[sampled], levels)
        if len(self._probabilities):
            self._probabilities[:, :height, left:right] = np.rint(255 * np.where(known, probable(values), 0))


def _squares(values: np.ndarray, side: int) -> np.ndarray:
    """[..., h, w] cut into squares: a view [..., h / side, side, w / side, side]."""
    *others, height, width = values.shape
    return values.reshape(*others, height // side, side, width // side, side)
