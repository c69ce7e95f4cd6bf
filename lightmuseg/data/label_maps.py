"""Class maps as PNG, TIFF or NIfTI files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from monai.data import ImageWriter
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.files import write_whole


def output_ending(output_format: str) -> str:
    """The file ending of class maps in a format: "png", "tiff" or "nifti".

    Raises:
        InputError: for another format.
    """
    if output_format not in OUTPUT_ENDINGS:
        raise InputError(f"output_format={output_format!r} is not known; one of {', '.join(OUTPUT_ENDINGS)}.")
    return OUTPUT_ENDINGS[output_format]


class LabelMapWriter(ImageWriter):
    """Write a class map [1, H, W] whole, as the file's ending asks: .png, .tif or .nii.gz.

    MONAI's own writers leave a partial file where they are interrupted and have none for tifffile. Rows and columns
    stay as they are in the array; NIfTI, which counts (x, y), gets the transpose. The writer of ``SaveImaged``.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__()

    def set_data_array(self, data_array, channel_dim: int | None = 0, **kwargs: object) -> None:
        pixels = np.asarray(data_array)
        if pixels.min() < 0 or pixels.max() > 255:
            raise ValueError(f"class indices from {pixels.min()} to {pixels.max()} do not fit into 8 bits.")
        self.data_obj = (pixels if channel_dim is None else pixels.squeeze(channel_dim)).astype(np.uint8)

    def set_metadata(self, meta_dict: Mapping | None, **options: object) -> None:
        """Nothing to keep: an image file has no place in space."""

    def write(self, filename: str | Path, verbose: bool = False, **kwargs: object) -> None:
        """Write the file, or raise an OSError and leave nothing.

        Raises:
            ValueError: for an ending other than the three.
        """
        writer = next((writer for ending, writer in WRITERS.items() if str(filename).endswith(ending)), None)
        if writer is None:
            raise ValueError(f"{filename}: class maps are written as {', '.join(WRITERS)}.")
        write_whole(filename, lambda temporary: writer(temporary, self.data_obj))


def _write_png(path: Path, classes: np.ndarray) -> None:
    Image.fromarray(classes).save(path)


def _write_tiff(path: Path, classes: np.ndarray) -> None:
    tifffile.imwrite(path, classes, compression="zlib", photometric="minisblack")


def _write_nifti(path: Path, classes: np.ndarray) -> None:
    # x to the left and y to the back, as ITK turns an image without orientation: row 0 is shown at the top.
    nibabel.save(nibabel.Nifti1Image(classes.T, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


OUTPUT_ENDINGS = {"png": ".png", "tiff": ".tif", "nifti": ".nii.gz"}
WRITERS = {".png": _write_png, ".tif": _write_tiff, ".nii.gz": _write_nifti}
