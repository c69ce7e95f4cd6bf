"""Work beside the filling of a store: it follows the rows, and ends where they do."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from lightmuseg.areas.area import WholeSlide
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.engine.rows import RowStore, UnfilledError
from lightmuseg.slides.beside import Beside

PLAN = plan_tiles((401, 700), 2.0, WholeSlide(802, 1400), 128, 0.25, 2)


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path / "rows", PLAN, 0.5, 4.0, ["tumor"])


def rows_of(store):
    """The lines of each row, by its number."""
    assert len(store) == len(PLAN.edges_y) - 1
    return [np.full((low - high, store.width), row, np.uint8) for row, (high, low) in enumerate(pairwise(PLAN.edges_y))]


def test_work_gets_every_row_as_it_comes(store):
    seen, rows = threading.Event(), rows_of(store)

    def follow():
        bands = []
        for band in store.bands(16):
            bands.append(band.copy())
            seen.set()
        return np.concatenate(bands)

    with Beside(store, {"follow": follow, "other": lambda: 7}) as beside:
        store.finished()
        for row, lines in enumerate(rows):
            assert not (row == 0 and seen.is_set())
            store.save(row, {"classes": lines}, {})
            # the first row is read before there is a second
            assert row > 0 or seen.wait(60)
            beside.check()
    assert np.array_equal(beside["follow"], np.concatenate(rows))
    assert beside["other"] == 7


def test_rows_that_were_there_before_are_followed_too(store):
    rows = rows_of(store)
    for row, lines in enumerate(rows):
        store.save(row, {"classes": lines}, {})
    with Beside(store, {"follow": lambda: np.concatenate([band.copy() for band in store.bands(64)])}) as beside:
        assert store.finished() == len(store)
    assert np.array_equal(beside["follow"], np.concatenate(rows))


def run_beside(store, work, fill):
    beside = Beside(store, {"work": work})
    with beside:
        fill(beside)
    return beside


def fill_all(store):
    store.finished()
    for row, lines in enumerate(rows_of(store)):
        store.save(row, {"classes": lines}, {})


def test_work_that_waits_is_let_go_where_the_filling_fails(store):
    ended = []

    def follow():
        try:
            list(store.bands(16))
        except UnfilledError:
            ended.append("let go")
            raise

    def fill(beside):
        store.finished()
        store.save(0, {"classes": rows_of(store)[0]}, {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_beside(store, follow, fill)
    assert ended == ["let go"]


def test_an_error_of_the_work_is_told_before_the_filling_ends(store):
    def fail():
        raise OSError("no space left")

    def fill(beside):
        for _ in range(600):
            time.sleep(0.1)
            beside.check()

    with pytest.raises(OSError, match="no space left"):
        run_beside(store, fail, fill)


def test_an_error_at_the_end_is_told_too(store):
    def fail():
        list(store.bands(16))
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_beside(store, fail, lambda beside: fill_all(store))
