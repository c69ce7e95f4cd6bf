"""A slide of any size from real pixels, to try the slide engine on.

python scripts/make_pyramid.py --source SOURCE --output slide.tif --side 40000 [--mpp 0.25] [--compression jpeg]
    [--tissue 1.0]

SOURCE is an image of tissue or a folder of such. Its blocks make a pattern that is repeated over the slide, so that
each distinct tile is encoded once and the slide is written as fast as the disk takes it, in little memory. With
--tissue 0.3 three tenths of it are blobs of tissue, the rest is glass.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import fire
import numpy as np
import tifffile
from PIL import Image

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.files import write_whole
from lightmuseg.wsi.images import IMAGE_SUFFIXES, files_by_stem, read_rgb
from lightmuseg.wsi.tiff import checked_mpp

TILE = 256
# Both are TILE times a power of two, so that the pattern still repeats after whole tiles on every level.
PATTERN = 2048, 4096
SMALLEST_LEVEL = 1024
MAX_SIDE = 400_000
# Scanners' usual choice; for Pillow and for the TIFF tag.
JPEG_QUALITY, JPEG_SUBSAMPLING = 85, "4:2:2"
TIFF_SUBSAMPLING = 2, 1
GLASS, GLASS_NOISE = 243, 1.5
BLOBS_A_SIDE = 3
SEED = 42


def make(
    source: str | Path, output: str | Path, side: int, mpp: float = 0.25, compression: str = "jpeg", tissue: float = 1.0
) -> None:
    """Write a pyramid of SIDE x SIDE pixels as a tiled BigTIFF.

    Args:
        source: an image of tissue, or a folder of images.
        output: the slide, .tif.
        side: pixels of level 0.
        mpp: um/px of level 0.
        compression: jpeg as scanners use it, or adobe_deflate, which loses nothing.
        tissue: share of the slide that is tissue, 0 to 1.
    """
    if not (isinstance(side, int) and TILE <= side <= MAX_SIDE):
        raise InputError(f"--side {side}: give whole pixels, {TILE} to {MAX_SIDE}.")
    if not (isinstance(tissue, (int, float)) and 0 <= tissue <= 1):
        raise InputError(f"--tissue {tissue}: give a share of the slide, 0 to 1.")
    if compression not in ENCODERS:
        raise InputError(f"--compression {compression} is not known; one of {', '.join(ENCODERS)}.")
    target = Path(output)
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"--output {output}: give a name that ends in .tif.")
    if not isinstance(mpp, (int, float)):
        raise InputError(f"--mpp {mpp}: give um per pixel, such as 0.25.")
    slide = Slide(side, _pattern(Path(source)), tissue, compression)
    write_whole(target, lambda path: _write(path, slide, checked_mpp(target, mpp, "--mpp"), compression))
    print(f"{target}: {slide.side} x {slide.side} pixels, {slide.levels} levels, {target.stat().st_size / 1e6:.0f} MB")


def _write(path: Path, slide: Slide, mpp: float, compression: str) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(slide.levels):
            side = slide.side >> level
            per_cm = 1e4 / (mpp * slide.side / side)
            file.write(
                slide.tiles(level),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr" if compression == "jpeg" else "rgb",
                subsampling=TIFF_SUBSAMPLING if compression == "jpeg" else None,
                compression=compression,
                subfiletype=int(level > 0),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
            )


def _pattern(source: Path) -> np.ndarray:
    """uint8 [*PATTERN, 3] of the largest square blocks, a power of two wide, that every source holds."""
    paths = files_by_stem(source).values() if source.is_dir() else [source]
    if not paths:
        raise InputError(f"{source}: holds no images ({', '.join(IMAGE_SUFFIXES)}); give a folder of tissue images.")
    pictures = [read_rgb(path) for path in paths]
    shortest = min(min(picture.shape[:2]) for picture in pictures)
    if shortest < TILE:
        raise InputError(f"{source}: holds an image that is {shortest} pixels wide or high; give {TILE} or more.")
    block = min(2 ** int(math.log2(shortest)), *PATTERN)
    blocks = [
        picture[y : y + block, x : x + block]
        for picture in pictures
        for y in range(0, picture.shape[0] - block + 1, block)
        for x in range(0, picture.shape[1] - block + 1, block)
    ]
    rows, columns = (length // block for length in PATTERN)
    chosen = [blocks[index % len(blocks)] for index in range(rows * columns)]
    return np.vstack([np.hstack(chosen[row * columns : (row + 1) * columns]) for row in range(rows)])


def _halved(pattern: np.ndarray) -> np.ndarray:
    """The pattern on the next level; what would get narrower than a tile is repeated first."""
    pattern = np.tile(pattern, [1 + (length == TILE) for length in pattern.shape[:2]] + [1])
    height, width = pattern.shape[:2]
    quads = pattern.reshape(height // 2, 2, width // 2, 2, 3).astype(np.uint16)
    return ((quads.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)


def _tile_of(pattern: np.ndarray, row: int, column: int) -> np.ndarray:
    y, x = (number * TILE % length for number, length in zip((row, column), pattern.shape))
    return pattern[y : y + TILE, x : x + TILE]


class Slide:
    """The encoded tiles of each level."""

    def __init__(self, side: int, pattern: np.ndarray, tissue: float, compression: str) -> None:
        self.side = side
        self.levels = max(1, math.ceil(math.log2(side / SMALLEST_LEVEL)) + 1)
        self._encode = ENCODERS[compression]
        noise = np.random.default_rng(SEED).normal(GLASS, GLASS_NOISE, (2 * TILE, 2 * TILE, 1))
        glass = np.repeat(noise.round().clip(0, 255).astype(np.uint8), 3, axis=2)
        # The smaller part is the blobs, so that they always find room.
        self._around, self._within = (glass, pattern) if tissue <= 0.5 else (pattern, glass)
        self._blobs = _blobs(side, min(tissue, 1 - tissue))

    def tiles(self, level: int) -> Iterator[bytes]:
        """Rows from the top, each from the left."""
        around, within = self._around, self._within
        for _ in range(level):
            around, within = _halved(around), _halved(within)
        known: dict[tuple[int, int, int], bytes] = {}
        count = math.ceil((self.side >> level) / TILE)
        for row in range(count):
            for column in range(count):
                share = self._share(level, row, column)
                if isinstance(share, np.ndarray):
                    outer, inner = (_tile_of(part, row, column).astype(np.float32) for part in (around, within))
                    yield self._encode((outer + share * (inner - outer)).round().astype(np.uint8))
                    continue
                part = within if share else around
                place = share, row % (part.shape[0] // TILE), column % (part.shape[1] // TILE)
                if place not in known:
                    known[place] = self._encode(_tile_of(part, row, column))
                yield known[place]

    def _share(self, level: int, row: int, column: int) -> int | np.ndarray:
        """Of blobs in each pixel of a tile, float32 [TILE, TILE, 1]; 1 or 0 where that is all of it."""
        pixel0 = 1 << level
        side0 = TILE * pixel0
        x0, y0 = column * side0, row * side0
        from_middle = [blob.distance(x0 + side0 / 2, y0 + side0 / 2) for blob in self._blobs]
        near = [blob for blob, distance in zip(self._blobs, from_middle) if abs(distance) <= side0 * math.sqrt(0.5)]
        if not near:
            return int(any(distance < 0 for distance in from_middle))
        centres = (np.arange(TILE, dtype=np.float32) + 0.5) * pixel0
        distance = np.minimum.reduce([blob.distance(x0 + centres, y0 + centres[:, None]) for blob in near])
        return np.clip(0.5 - distance / pixel0, 0, 1)[..., None].astype(np.float32)


class Ellipse:
    """A blob: centre, half axes and the turn of the first, in level-0 pixels and radians."""

    def __init__(self, x0: float, y0: float, first: float, second: float, angle: float) -> None:
        self.x0, self.y0, self.first, self.second = x0, y0, first, second
        self.cos, self.sin = math.cos(angle), math.sin(angle)

    def distance(self, x0, y0):
        """From the edge, in level-0 pixels, negative inside; never further than in truth."""
        right, down = x0 - self.x0, y0 - self.y0
        along, across = right * self.cos + down * self.sin, down * self.cos - right * self.sin
        return (np.hypot(along / self.first, across / self.second) - 1) * min(self.first, self.second)


def _blobs(side: int, share: float) -> list[Ellipse]:
    """Ellipses, one in each cell of a grid, that cover ``share`` (up to 0.5) of the slide together."""
    if not share:
        return []
    rng = np.random.default_rng(SEED)
    cell = side / BLOBS_A_SIDE
    blobs = []
    for row in range(BLOBS_A_SIDE):
        for column in range(BLOBS_A_SIDE):
            ratio = rng.uniform(0.8, 1)
            first = cell * math.sqrt(share / (math.pi * ratio))
            shift = rng.uniform(-1, 1, 2) * (cell / 2 - first)
            x0, y0 = (column + 0.5) * cell + shift[0], (row + 0.5) * cell + shift[1]
            blobs.append(Ellipse(x0, y0, first, first * ratio, rng.uniform(0, math.pi)))
    return blobs


def _jpeg(tile: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
    return buffer.getvalue()


def _deflate(tile: np.ndarray) -> bytes:
    return zlib.compress(tile.tobytes(), 1)


ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {"jpeg": _jpeg, "adobe_deflate": _deflate}

if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(make)
