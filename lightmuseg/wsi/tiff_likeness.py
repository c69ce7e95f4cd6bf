"""Whether two pages of a TIFF show the same, by a few of their tiles.

Frames: ``xl, yl`` are pixels of the finer page, ``xc, yc`` of the coarser.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import tifffile
from PIL import Image

from .jpeg import with_tables
from .tiff import UNDECODABLE, is_contiguous

# Pixels of the finer page along a side of a place, at most.
MAX_SIDE = 2048
# Of a tile that is decoded.
MAX_TILE_SIDE = 8192
# Tiles without compression that are looked into for structure.
SAMPLED = 64
# Blocks along a side in which a place is compared, and pixels of the coarser page to a block, at least: what is lost
# by JPEG, another filter or half a pixel's shift is smaller.
BLOCKS, LEAST_BLOCKS, BLOCK = 16, 4, 4
# In grey values: what varies less is plain.
PLAIN = 6.0
# Places of one answer that settle it.
ENOUGH = 3
# Least correlation of a place, and share of the places that must have it; see shows_the_same.
LEAST_CORRELATION, LEAST_SHARE = 0.65, 0.6
_PILLOWS = (
    tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.JPEG2000, tifffile.COMPRESSION.APERIO_JP2000_RGB,
    tifffile.COMPRESSION.APERIO_JP2000_YCBC,
)  # fmt: skip


def shows_the_same(fine: Sequence[tifffile.TiffPage], coarse: Sequence[tifffile.TiffPage]) -> bool | None:
    """Whether tiled pages of one shape show the same; None where that cannot be seen.

    Tiles of many bytes have structure. Those of either page are compared by the correlation of their brightness in
    blocks, so that neither blank glass nor another picture passes. Where both are plain everywhere, the same grey is
    the same.

    Measured on eight regions and slides of breast, ovary and skin, reduced 2 to 32 times by taking every n-th pixel, by
    means and by Lanczos, as JPEG of quality 30 and 90: 675 places correlate by 0.71 and more, half by 0.99 and more. Of
    176 pairs of different pictures and of glass and labels none has more than 0.62 at any place.

    Args:
        fine, coarse: pages of one level, one or, of one channel each, three.
    """
    same, plain = [], []
    if any(not _is_sound(page) for page in (*fine, *coarse)):
        return None
    for box in _places(fine[0], coarse[0]):
        blocks = min(BLOCKS, int(min(box[1][2:]) / BLOCK))
        if blocks < LEAST_BLOCKS:
            continue
        try:
            a, b = (_brightness(pages, part, blocks) for pages, part in zip((fine, coarse), box))
        except UNDECODABLE:
            continue
        spread = max(a.std(), b.std())
        alike = abs(a.mean() - b.mean()) <= PLAIN
        if spread < PLAIN:
            plain.append(alike)
        else:
            structured = min(a.std(), b.std()) > spread / 4
            same.append(bool(structured and np.corrcoef(a, b)[0, 1] >= LEAST_CORRELATION))
        if len(same) >= ENOUGH and len(set(same)) == 1:
            break
    votes = same or plain
    return float(np.mean(votes)) >= LEAST_SHARE if votes else None


def _is_sound(page: tifffile.TiffPage) -> bool:
    """Whether its tiles are of a size that can be decoded, and as many as they should be."""
    if not (min(page.tilewidth, page.tilelength) >= 1 and max(page.tilewidth, page.tilelength) <= MAX_TILE_SIDE):
        return False
    rows, columns = _grid(page)
    tiles = rows * columns * (1 if is_contiguous(page) else page.samplesperpixel)
    return tiles == len(page.dataoffsets) == len(page.databytecounts)


def _grid(page: tifffile.TiffPage) -> tuple[int, int]:
    """Rows and columns of its tiles."""
    return math.ceil(page.imagelength / page.tilelength), math.ceil(page.imagewidth / page.tilewidth)


def _structure(page: tifffile.TiffPage) -> np.ndarray:
    """[rows, columns] how much there is in each tile, by its bytes."""
    rows, columns = _grid(page)
    counts = np.asarray(page.databytecounts[: rows * columns], np.int64).reshape(rows, columns)
    if page.compression != tifffile.COMPRESSION.NONE:
        return counts
    # all are as long: by what some bytes of some tiles vary
    found = np.zeros(counts.shape)
    for number in np.unique(np.linspace(0, counts.size - 1, SAMPLED).astype(int)):
        data = np.frombuffer(_bytes(page, int(number), 4 * SAMPLED), np.uint8)
        found.flat[number] = data.std() if data.size else 0
    return found


def _places(fine: tifffile.TiffPage, coarse: tifffile.TiffPage) -> Iterator[tuple[tuple, tuple]]:
    """Boxes (x, y, width, height) of both pages that lie upon each other, by the tiles that hold most."""
    step_x, step_y = fine.imagewidth / coarse.imagewidth, fine.imagelength / coarse.imagelength
    side = min(2 * LEAST_BLOCKS * BLOCK * max(step_x, step_y), MAX_SIDE)
    width, height = max(fine.tilewidth, side), max(fine.tilelength, side)
    found: list[list[tuple[int, int]]] = []
    for page, step in ((fine, (1.0, 1.0)), (coarse, (step_x, step_y))):
        found.append([])
        for row, column in _most(_structure(page)):
            # of a coarse tile the middle
            x, y = (column + 0.5) * page.tilewidth * step[0], (row + 0.5) * page.tilelength * step[1]
            found[-1].append((int(x // fine.tilewidth) * fine.tilewidth, int(y // fine.tilelength) * fine.tilelength))
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*found))
    for x, y in dict.fromkeys(corner for corner in in_turn if corner):
        x, y = max(0, min(x, fine.imagewidth - 1)), max(0, min(y, fine.imagelength - 1))
        box = (x, y, min(width, fine.imagewidth - x), min(height, fine.imagelength - y))
        yield box, (box[0] / step_x, box[1] / step_y, box[2] / step_x, box[3] / step_y)


def _most(structure: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns of the tiles with most in them, one of each quarter, so that one fault does not decide."""
    found = []
    for part_rows, part_columns in itertools.product(*(np.array_split(np.arange(n), 2) for n in structure.shape)):
        part = structure[np.ix_(part_rows, part_columns)]
        if part.size:
            row, column = np.unravel_index(part.argmax(), part.shape)
            found.append((int(part_rows[row]), int(part_columns[column])))
    return found


def _brightness(pages: Sequence[tifffile.TiffPage], box: tuple[float, float, float, float], blocks: int) -> np.ndarray:
    """Of a box (x, y, width, height), in ``blocks`` x ``blocks`` means."""
    page = pages[0]
    x, y = box[:2]
    right, lower = min(x + box[2], page.imagewidth), min(y + box[3], page.imagelength)
    rows = range(int(y) // page.tilelength, math.ceil(lower / page.tilelength))
    columns = range(int(x) // page.tilewidth, math.ceil(right / page.tilewidth))
    pixels = np.concatenate([np.concatenate([_grey(pages, r, c) for c in columns], axis=1) for r in rows])
    at_x, at_y = columns.start * page.tilewidth, rows.start * page.tilelength
    inside = (x - at_x, y - at_y, right - at_x, lower - at_y)
    image = Image.fromarray(pixels).resize((blocks, blocks), Image.Resampling.BOX, inside)
    return np.asarray(image, float).ravel()


def _grey(pages: Sequence[tifffile.TiffPage], row: int, column: int) -> np.ndarray:
    """float32 [tile's height, tile's width]; 255 where a tile has no bytes."""
    page = pages[0]
    rows, columns = _grid(page)
    planes = 1 if is_contiguous(page) else page.samplesperpixel
    grey = np.full((page.tilelength, page.tilewidth), 255, np.float32)
    parts = []
    for one, plane in itertools.product(pages, range(min(3, planes))):
        number = (plane * rows + row) * columns + column
        data = _bytes(one, number)
        if data:
            parts.append(_tile(one, number, data))
    if parts:
        part = np.mean(parts, axis=0)[: page.tilelength, : page.tilewidth]
        grey[: part.shape[0], : part.shape[1]] = part
    return grey


def _bytes(page: tifffile.TiffPage, number: int, most: int | None = None) -> bytes:
    count = page.databytecounts[number]
    file = page.parent.filehandle
    file.seek(page.dataoffsets[number])
    return file.read(min(count, most or count))


def _tile(page: tifffile.TiffPage, number: int, data: bytes) -> np.ndarray:
    """The mean of a tile's channels, without its alpha."""
    if page.compression in _PILLOWS:
        # without optional packages; which colours the file means plays no part here
        with Image.open(io.BytesIO(with_tables(data, page.jpegtables))) as image:
            if max(image.size) > max(page.tilewidth, page.tilelength):
                raise ValueError("its tile is larger than it says")
            pixels = np.asarray(image)
    else:
        pixels = page.decode(data, number)[0]
        pixels = pixels[0] if pixels is not None else np.full((1, 1), 255, np.uint8)
    return pixels if pixels.ndim == 2 else pixels[..., :3].mean(axis=2)
