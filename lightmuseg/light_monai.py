"""MONAI without what the slide engine never needs of it."""

from __future__ import annotations

import sys

# What MONAI loads at its own import wherever it is installed, for training, metrics, figures and formats of radiology:
# most of the seconds that this import takes.
UNUSED = (
    "cupy", "ignite", "matplotlib", "mlflow", "nibabel", "nvidia.nvimgcodec", "pandas", "pydicom", "scipy.signal",
    "skimage", "sklearn", "tensorboard", "torchvision", "transformers", "zarr",
)  # fmt: skip


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
