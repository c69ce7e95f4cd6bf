"""Large arrays lie on pages of their own while a slide is segmented, by the system's own list of them."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from lightmuseg.engine.heap import MAPPED_BYTES, large_arrays_mapped

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc is told so"
)


def is_on_the_heap(array):
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
    places = [[int(place, 16) for place in line.split()[0].split("-")] for line in lines]
    return any(start <= array.ctypes.data < end for start, end in places)


def last_of_many():
    """An array for which no hole is left on the heap; nothing of them is touched."""
    return [np.empty(32 * MAPPED_BYTES, np.uint8) for _ in range(64)][-1]


@pytest.mark.parametrize("wanted", [True, False])
def test_large_arrays_leave_the_heap_and_small_ones_do_not(wanted):
    with large_arrays_mapped():
        pass
    with large_arrays_mapped(wanted):
        large, small = last_of_many(), np.empty(MAPPED_BYTES // 8, np.uint8)
    assert is_on_the_heap(large) != wanted
    assert is_on_the_heap(small)


def test_afterwards_all_is_as_before():
    with pytest.raises(ValueError, match="a fault"), large_arrays_mapped():
        raise ValueError("a fault")
    assert is_on_the_heap(last_of_many())
