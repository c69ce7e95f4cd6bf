"""Image files read strictly: 8-bit RGB and 8-bit masks, or a clear refusal; never silently wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from lightmuseg.errors import InputError, first_line

from .jpeg import strict_jpeg_fault

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
# what Pillow raises at broken files, the last at a part of a PNG that is empty
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, IndexError)


class _Strictness:
    """Pillow refuses what is cut short while any thread is in here, also where another library has told it not to."""

    def __init__(self) -> None:
        self._lock, self._threads, self._before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_strictness = _Strictness()


def files_by_stem(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """The files in ``folder`` with one of the endings, sorted, by name without ending, of which no two may be equal."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes):
        if path.stem in found:
            raise InputError(f"{path}: {found[path.stem].name} has the same name beside it; take one of them away.")
        found[path.stem] = path
    return found


def read_rgb(path: str | Path) -> np.ndarray:
    """The picture in ``path`` as uint8 [H, W, 3]; InputError where it is not whole, or not 8-bit colour."""
    return np.asarray(_opened(path, as_rgb))


def read_codes(path: str | Path) -> np.ndarray:
    """The mask in ``path`` as uint8 [H, W]; of a palette image the indices, not the colours.

    Raises:
        InputError: where it cannot be read whole, or is not one channel of values up to 255.
    """
    return np.asarray(_opened(path, as_codes))


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the picture in ``path``, from its header; InputError where it is no picture."""
    return _opened(path, lambda image: image.size)


def _opened(path: str | Path, convert):
    try:
        with Image.open(path) as image:
            return convert(image)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: has too many pixels ({first_line(error)}); make it smaller.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image file that can be read; give a PNG, JPEG or TIFF.") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read whole ({error}); copy or export it again.") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as 8-bit RGB; the converter for MONAI's ``PILReader``.

    Palette images and opaque RGBA are converted; 16-bit, grey, CMYK and transparent ones are refused by an InputError.
    """
    name = getattr(image, "filename", "") or "image"
    if image.mode in ("RGB", "RGBA", "LA") and _bits(image) != 8:
        # Pillow would drop the low bytes, which blackens 12-bit data.
        raise InputError(f"{name}: is {_bits(image)}-bit colour, not 8-bit RGB; convert it to 8-bit RGB first.")
    _load(image, name)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "RGB" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        if image.getchannel("A").getextrema()[0] < 255:
            raise InputError(f"{name}: has transparent pixels; flatten it to RGB on white first.")
        image = image.convert("RGB")
    if image.mode != "RGB":
        raise InputError(f"{name}: is {_description(image)}, not 8-bit RGB; convert it to 8-bit RGB first.")
    return image


def as_codes(image: Image.Image) -> Image.Image:
    """An opened mask as 8-bit codes, for MONAI's ``PILReader``; InputError for colour and for values above 255."""
    name = getattr(image, "filename", "") or "mask"
    bits = _bits(image)
    _load(image, name)
    if image.mode == "P":
        return Image.fromarray(np.asarray(image))
    if image.mode in ("L", "1"):
        # Pillow stretches grey of less than 8 bits to 0..255; the codes are what the file holds.
        return Image.fromarray(np.asarray(image).astype(np.uint8) // (1 if bits == 1 else 255 // (2**bits - 1)))
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 255:
            raise InputError(f"{name}: holds the value {values.max()}; mask codes end at 255.")
        return Image.fromarray(values.astype(np.uint8))
    raise InputError(f"{name}: is {_description(image)}; a mask is one channel of class codes.")


def _bits(image: Image.Image) -> int:
    """Bits per channel in the file, of an image that is not loaded yet."""
    if image.mode == "1":
        return 1
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))
    modes = [str(tile[3]) for tile in getattr(image, "tile", [])]
    return next((bits for bits in (16, 4, 2) if any(f";{bits}" in mode for mode in modes)), 8)


def _load(image: Image.Image, name: str) -> None:
    try:
        if image.format in ("JPEG", "MPO") and getattr(image, "fp", None) is not None:
            image.fp.seek(0)
            fault = strict_jpeg_fault(image.fp.read(), *image.size)
            if fault is not None:
                raise ValueError(fault)
        with _strictness:
            image.load()
    except UNREADABLE as error:
        raise InputError(f"{name}: cannot be read whole ({error}); copy or export it again.") from error


def _description(image: Image.Image) -> str:
    kinds = {"L": "8-bit grey", "1": "black and white", "LA": "grey with transparency", "F": "floating point"}
    return kinds.get(image.mode, "16-bit or 32-bit grey" if image.mode.startswith("I") else image.mode)
