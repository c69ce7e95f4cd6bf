from itertools import pairwise

import numpy as np
import pytest

from lightmuseg.areas.area import WholeSlide
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.engine.rows import MemoryRows, RowStore

SIZE = 401, 700


@pytest.fixture
def plan():
    return plan_tiles(SIZE, 2.0, WholeSlide(802, 1400), 128, 0.25, 2)


@pytest.fixture(params=["disk", "memory"])
def stored(plan, tmp_path, request):
    """A filled store, and the whole map, samples of entropy and probabilities that it was filled with."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (350, 201), dtype=np.uint8)
    entropy = rng.integers(0, 256, (88, 51), dtype=np.uint8)
    probabilities = rng.integers(0, 256, (3, 350, 201), dtype=np.uint8)
    about = plan, 0.5, 4.0, ["tumor", "stroma"]
    store = MemoryRows(*about) if request.param == "memory" else RowStore(tmp_path / "rows", *about)
    assert store.finished() == 0
    for row, (low, high) in enumerate(pairwise(plan.edges_y)):
        samples = entropy[-(-low // 4) : -(-high // 4)]
        # the engine uses its arrays again
        arrays = {"classes": classes[low:high], "entropy": samples, "probabilities": probabilities[:, low:high]}
        arrays = {name: array.copy() for name, array in arrays.items()}
        store.save(row, arrays, {"row": row})
        for array in arrays.values():
            array.fill(7)
    assert store.finished() == len(store)
    return store, classes, entropy, probabilities


@pytest.mark.parametrize("height", [1, 7, 48, 256, 1000])
def test_bands_make_the_whole_map(stored, height):
    store, classes, entropy, probabilities = stored
    assert (store.width, store.height) == (201, 350)
    bands = list(store.bands(height))
    assert {len(band) for band in bands[:-1]} <= {height}
    assert np.array_equal(np.concatenate(bands), classes)
    assert np.array_equal(np.concatenate(list(store.bands(height, "entropy"))), entropy)
    assert np.array_equal(np.concatenate(list(store.bands(height, "probabilities")), axis=1), probabilities)


def test_records_come_back(stored):
    assert [record["row"] for record in stored[0].records()] == list(range(len(stored[0])))


@pytest.mark.parametrize("stored", ["disk"], indirect=True)
def test_rows_are_finished_up_to_the_first_that_is_damaged(stored, tmp_path):
    store = stored[0]
    paths = sorted((tmp_path / "rows").iterdir())
    content = paths[3].read_bytes()
    for share in (0, 0.3, 0.9):
        paths[3].write_bytes(content[: int(len(content) * share)])
        assert store.finished() == 3
    damaged = bytearray(content)
    damaged[len(damaged) // 4] ^= 255
    paths[3].write_bytes(damaged)
    assert store.finished() == 3
    paths[3].write_bytes(content)
    paths[1].unlink()
    assert store.finished() == 1
