"""What only a process of our own may set, for all that runs in it: library code never calls it."""

from __future__ import annotations

import ctypes
import sys

# What MONAI loads at its own import wherever it is installed, for training, metrics, figures and formats of radiology:
# most of the seconds that this import takes.
UNUSED = (
    "cupy", "ignite", "matplotlib", "mlflow", "nibabel", "nvidia.nvimgcodec", "pandas", "pydicom", "scipy.signal",
    "skimage", "sklearn", "tensorboard", "torchvision", "transformers", "zarr",
)  # fmt: skip
# glibc's mallopt(3): from how many bytes on a block is mapped by itself. By default that grows, up to 32 MiB, with the
# blocks that are freed.
_M_MMAP_THRESHOLD = -3
MAPPED_BYTES = 512 * 1024


def load_light_monai() -> None:
    """Load MONAI as if the packages :data:`UNUSED` were not installed.

    For processes that segment slides and do nothing else: MONAI's own parts that need these packages then say that they
    are not installed. The packages themselves can be imported afterwards. Does nothing where MONAI is loaded.
    """
    if "monai" in sys.modules:
        return
    hidden = [name for name in UNUSED if name not in sys.modules]
    # what Python's import takes for "there is no such module"
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        import monai.bundle  # noqa: F401
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def send_no_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting their use to their makers: a laboratory's machine says nothing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def keep_heap_small() -> None:
    """Give arrays of half a megabyte or more pages of their own from now on; on glibc, else nothing.

    Tiles and their batches otherwise lie on the heap, among small pieces that live longer; the holes that they leave
    between these grew to gigabytes on slides of 16 gigapixels. An array that fits a hole which is on the heap already
    still goes there. Pages cost time when they are first touched: nothing that can be measured for tiles, but half the
    speed of PyTorch on a CPU, which allocates every layer's result, so that a process of that goes without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
