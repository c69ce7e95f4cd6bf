"""Which picture of a TIFF is the slide: the largest of 8-bit RGB that is no label, macro or thumbnail.

Where it stands in the file plays no part.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import tifffile

from lightmuseg.errors import InputError, first_line

from .tiff import UNREADABLE_TAGS, check_pixels, is_contiguous, is_rgb, raise_bug, size_of
from .tiff_pictures import MAX_PAGES, Picture, declared_pictures, joined_pictures

# Pixels of a slide's longer side, at least.
LEAST_SIDE = 64


# Of the XMP of Ventana's scanners.
_VENTANA = b"<iScan"


def opened(path: Path) -> tifffile.TiffFile:
    """A TIFF whose pages can be followed to the last; InputError where they run in a ring or to nowhere."""
    with reading_tags(path, "not a TIFF that can be read"), ExitStack() as stack:
        file = stack.enter_context(tifffile.TiffFile(path))
        _check_chain(path, file)
        stack.pop_all()
    return file


@contextmanager
def reading_tags(path: Path, fault: str = "its tags cannot be read") -> Iterator[None]:
    """Turn what fails of a TIFF's tags into an InputError in one line."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE_TAGS as error:
        raise_bug(error)
        raise InputError(f"{path}: {fault} ({first_line(error)}); export it again.") from error


def choose_picture(path: Path, file: tifffile.TiffFile, series: int | None = None) -> tuple[Picture, dict[str, Any]]:
    """The picture of a TIFF that is the slide: the one numbered ``series``, else the largest that is no label or such.

    Returns:
        The picture; and as plain values which it is, what the others are, and which of them could be meant.

    Raises:
        InputError: where none is 8-bit RGB, or there is none of this number.
    """
    if any(_VENTANA in _xmp(page) for page in file.pages):
        raise InputError(
            f"{path}: is a Ventana slide, whose tiles overlap; read it by OpenSlide: pip install 'lightmuseg[slides]'."
        )
    declared = list(declared_pictures(path, file))
    pictures = joined_pictures([picture for picture in declared if is_rgb(picture.levels[0])])
    slides = [number for number, picture in enumerate(pictures) if not picture.kind] or list(range(len(pictures)))
    if series is None:
        number = max(slides, key=lambda number: pictures[number].area, default=None)
        others = [picture for picture in declared if not (picture.kind or is_rgb(picture.levels[0]))]
        larger = [other for other in others if number is None or other.area > pictures[number].area]
        if larger or number is None:
            # what is left may be the thumbnail of it
            check_pixels(path, max(larger or declared, key=lambda other: other.area).levels[0])
    elif 0 <= series < len(pictures):
        number = series
    else:
        known = "; ".join(
            f"{number} {picture.name} ({picture.kind or 'slide'}, {picture.size[0]} x {picture.size[1]})"
            for number, picture in enumerate(pictures)
        )
        raise InputError(f"{path}: has no picture {series}; choose by --series one of {known or 'none'}.")
    is_tiled = pictures[number].base.is_tiled
    # what is in strips beside tiles are thumbnails and labels
    rivals = [other for other in slides if other != number and pictures[other].base.is_tiled >= is_tiled]
    plain = [
        {"series": index, "name": picture.name, "kind": picture.kind or "slide", "size": list(picture.size)}
        for index, picture in enumerate(pictures)
    ]
    return pictures[number], {
        **plain[number], "of": len(plain), "others": plain[:number] + plain[number + 1 :],
        "could_be_meant": [other for other in rivals if max(pictures[other].size) >= LEAST_SIDE],
    }  # fmt: skip


def _xmp(page: tifffile.TiffPage | tifffile.TiffFrame) -> bytes:
    found = page.tags.valueof("XMP") if isinstance(page, tifffile.TiffPage) else None
    return found if isinstance(found, bytes) else str(found or "").encode()


def lies_first(picture: Picture, file: tifffile.TiffFile) -> bool:
    """Whether a library finds the slide that takes a TIFF's first page for it, and finds its levels by their size.

    That is so where they are pages of RGB without alpha in one plane, and no other page in tiles has the size of one.
    """
    levels = picture.levels
    if any(len(pages) > 1 or pages[0].samplesperpixel != 3 or not is_contiguous(pages[0]) for pages in levels):
        return False
    pages = list(file.pages)
    sizes = [size_of(page) for page in pages if page.is_tiled == picture.base.is_tiled]
    offsets = {page.offset for page in pages}
    return picture.base.offset == pages[0].offset and all(
        page.offset in offsets and sizes.count(size_of(page)) == 1 for (page,) in levels
    )


def _check_chain(path: Path, file: tifffile.TiffFile) -> None:
    """Follow the pages before tifffile does: it runs round a ring for ever, and leaves out what is missing."""
    form, offset, seen = file.tiff, file.pages[0].offset, set()
    handle, end = file.filehandle, file.filehandle.size
    while offset:
        if offset in seen or len(seen) == MAX_PAGES or offset >= end:
            raise InputError(
                f"{path}: its page {len(seen) + 1} is said to begin at byte {offset}, which is missing, a page before, "
                "or one too many; copy or export it again."
            )
        seen.add(offset)
        handle.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
        handle.seek(tags * form.tagsize, os.SEEK_CUR)
        (offset,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
