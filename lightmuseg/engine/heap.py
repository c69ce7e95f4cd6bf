"""Memory of large arrays goes back to the system as soon as they are freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# glibc's mallopt(3): from how many bytes on a block is mapped by itself. By default that grows, up to the second, with
# the blocks that are freed.
_M_MMAP_THRESHOLD = -3
MAPPED_BYTES, USUAL_BYTES = 512 * 1024, 32 * 1024 * 1024


@contextmanager
def large_arrays_mapped(wanted: bool = True) -> Iterator[None]:
    """Give arrays of half a megabyte or more pages of their own, for as long as this lasts; on glibc, else nothing.

    One that fits a hole which is on the heap already still goes there.

    Tiles and their batches otherwise lie on the heap, among small pieces that live longer; the holes that they leave
    between these grew to gigabytes on slides of 16 gigapixels. Pages cost time when they are first touched: nothing
    that can be measured for tiles, but half the speed of PyTorch on a CPU, which allocates every layer's result.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if wanted and sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, USUAL_BYTES)
