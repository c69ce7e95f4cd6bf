"""Cut annotated regions into tiles and write the dataset: images, masks in BCSS codes, manifest."""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from lightmuseg import __version__
from lightmuseg.errors import InputError
from lightmuseg.files import whole_folder
from lightmuseg.text_files import write_json
from lightmuseg.wsi.tiff import checked_mpp

from .bcss import CODE_NAMES, CODES, UNANNOTATED
from .parallel import Progress, each
from .tile_manifest import FORMAT, MANIFEST, check_tile, read_manifest

# Kinds of image files, all lossless. PNG is half the size; TIFF, not compressed, is read in 0.6 ms instead of 8.
TILE_ENDINGS = {"png": ".png", "tiff": ".tif"}
# What a tile takes beyond its pixels: in the manifest, and in disk blocks that it does not fill.
BYTES_PER_ENTRY = 10_000
# Regions whose um/px differ by more are of several scales.
SCALE_TOLERANCE = 1.05


class Source(Protocol):
    """An annotated rectangle that can be cut: :class:`.bcss.Region` in files, :class:`.slide_regions.SlideRegion`.

    Its pixels come from ``image``, None where there are none, its codes from ``mask``.
    """

    @property
    def name(self) -> str:
        """By which tiles and manifest call it."""

    @property
    def patient(self) -> str:
        """Whose it is."""

    @property
    def image(self) -> Path | None:
        """The file of its pixels."""

    @property
    def mask(self) -> Path:
        """The file of its codes."""

    @property
    def mpp(self) -> float:
        """um/px of both."""

    @property
    def image_label(self) -> tuple[int, ...] | None:
        """Codes that a label of the whole image says are there."""

    def entry(self, mpp: float | None) -> dict[str, Any]:
        """What the manifest says of it, with its size at ``mpp``; None for its own um/px."""

    def read(self, coding: str, mpp: float | None) -> tuple[np.ndarray | None, np.ndarray]:
        """Its pixels, uint8 [H, W, 3], and its codes, uint8 [H, W], at ``mpp``."""


@dataclass(frozen=True)
class Cut:
    """A rectangle of a region that goes into one split whole; ``box`` is (x, y, width, height) in its files' pixels.

    ``overlap``, where it is not None, stands for that of the tiling.
    """

    region: Source
    split: str
    box: tuple[int, int, int, int] | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class Tiling:
    """How regions are cut into tiles.

    Attributes:
        tile_size: side of a tile in pixels.
        overlap: share of a tile that neighbours have in common at least.
        min_annotated: tiles with a smaller share of annotated pixels are left out.
        mask_coding: of the masks, a key of :data:`.bcss.MASK_CODINGS`.
        ending: of the images' files, a value of ``TILE_ENDINGS``; masks are PNG.
        mpp: um/px of the tiles, to which every region is resampled that has another; None to take regions as they
            are, which must then be of one scale.
    """

    tile_size: int = 512
    overlap: float = 0.0
    min_annotated: float = 0.0
    mask_coding: str = "bcss"
    ending: str = ".png"
    mpp: float | None = None

    def corners(self, box: tuple[int, int, int, int], overlap: float | None = None) -> Iterator[tuple[int, int]]:
        """The left upper corners (x, y) of the tiles that cover a box (x, y, width, height), row by row."""
        x, y, width, height = box
        overlap = self.overlap if overlap is None else overlap
        for y_tile in even_tile_starts(height, self.tile_size, overlap):
            for x_tile in even_tile_starts(width, self.tile_size, overlap):
                yield x + x_tile, y + y_tile


def even_tile_starts(length: int, tile_size: int, overlap: float = 0.0) -> list[int]:
    """Starts of the fewest tiles that cover ``length`` pixels, evenly spread.

    Args:
        length: in pixels.
        tile_size: in pixels.
        overlap: share of a tile that neighbours have in common at least; they share more where the length asks it.

    >>> even_tile_starts(1024, 512), even_tile_starts(1100, 512), even_tile_starts(300, 512)
    ([0, 512], [0, 294, 588], [0])
    >>> even_tile_starts(1024, 512, overlap=0.25)
    [0, 256, 512]
    """
    spread = max(0, length - tile_size)
    steps = math.ceil(spread / (tile_size - math.ceil(overlap * tile_size)))
    return [round(index * spread / max(1, steps)) for index in range(steps + 1)]


def filled(pixels: np.ndarray, tile_size: int) -> np.ndarray:
    """A picture [h, w, 3] or mask of BCSS codes [h, w] as a whole tile.

    What is missing to the right and below is, of a picture, the picture mirrored, as inference sees it outside of a
    slide; of a mask outside_roi.
    """
    missing = [(0, tile_size - pixels.shape[0]), (0, tile_size - pixels.shape[1])]
    if pixels.ndim == 2:
        return np.pad(pixels, missing, constant_values=CODES["outside_roi"])
    return np.pad(pixels, [*missing, (0, 0)], mode="reflect")


def write_dataset(
    cuts: Sequence[Cut], output: Path, options: dict[str, Any], tiling: Tiling, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the tiles of ``cuts`` to ``output``, or do nothing where they are there already.

    A tile is the exact crop of its region at the dataset's um/px, which the manifest says; where the region is smaller
    than a tile it is filled up with its picture mirrored and the code outside_roi. Of regions without an image only the
    manifest is written. ``output`` appears when it is complete.

    Args:
        cuts: what to cut, with the split of each.
        output: new folder, or one that an earlier call wrote.
        options: recorded in the manifest; an existing ``output`` must have been made with the same.
        tiling: how to cut.
        progress: is called with a step and its regions that are done and all of them.

    Returns:
        The manifest.

    Raises:
        InputError: for an unreadable, mismatched or unknown source, several scales that nothing resamples, an
            ``output`` of other content, or a full disk.
    """
    output = output.resolve()
    regions = list(dict.fromkeys(cut.region for cut in cuts))
    mpp = _mpp_of(regions, tiling)
    sources = each(partial(_entry, mpp=tiling.mpp), regions, "reading sources", progress)
    existing = _existing(output, options, sources)
    if existing is not None:
        return existing

    with whole_folder(output, _needed_bytes(cuts, sources, tiling)) as folder:
        if cuts[0].region.image is not None:
            for kind in ("images", "masks"):
                (folder / kind).mkdir()
        cut = partial(_cut, output=folder, tiling=tiling)
        tiles = [tile for made in each(cut, cuts, "cutting", progress) for tile in made]
        if not tiles:
            raise InputError(f"no tile has {tiling.min_annotated:.0%} of its pixels annotated; lower --min_annotated.")
        manifest = {
            "format": FORMAT,
            "lightmuseg": __version__,
            "options": options,
            "tile_size": tiling.tile_size,
            "mpp": mpp,
            "codes": {str(code): name for code, name in enumerate(CODE_NAMES)},
            "sources": sources,
            "tiles": tiles,
        }
        labelled = [tile for tile in tiles if "image_label" in tile]
        if labelled:
            manifest["tiles_denied_by_image_label"] = sum(map(_is_denied, labelled))
        write_json(folder / MANIFEST, manifest)
    return manifest


def _mpp_of(regions: Sequence[Source], tiling: Tiling) -> float:
    """um/px of the dataset."""
    for region in regions:
        checked_mpp(region.mask, region.mpp, "--mpp")
    if tiling.mpp is not None:
        return checked_mpp(regions[0].mask.parent, tiling.mpp, "--tile_mpp")
    finest, coarsest = (extreme(regions, key=lambda region: region.mpp) for extreme in (min, max))
    if coarsest.mpp > SCALE_TOLERANCE * finest.mpp:
        raise InputError(
            f"{coarsest.mask}: is of {coarsest.mpp:g} um/px and {finest.mask.name} of {finest.mpp:g}; give the um/px "
            f"to resample them to, such as --tile_mpp {coarsest.mpp:g}."
        )
    return statistics.median_low(region.mpp for region in regions)


def _is_denied(tile: dict[str, Any]) -> bool:
    """Whether a tile's mask shows a class that its image-level label says is not there."""
    return bool({int(code) for code in tile["code_pixels"]} - {*tile["image_label"], *UNANNOTATED})


def _needed_bytes(cuts: Sequence[Cut], sources: list[dict[str, Any]], tiling: Tiling) -> int:
    """The dataset's size were its tiles not compressed."""
    size_of = {source["roi"]: (source["width"], source["height"]) for source in sources}
    boxes = [(_box(cut, size_of[cut.region.name], tiling.mpp), cut.overlap) for cut in cuts]
    tiles = sum(1 for box in boxes for _ in tiling.corners(*box))
    rgb_and_mask = 0 if cuts[0].region.image is None else 4 * tiling.tile_size**2
    return tiles * (rgb_and_mask + BYTES_PER_ENTRY)


def _box(cut: Cut, size: tuple[int, int], mpp: float | None) -> tuple[int, int, int, int]:
    """A cut's (x, y, width, height) in its region of ``size`` pixels of ``mpp`` um/px; neighbours stay neighbours."""
    if cut.box is None:
        return (0, 0, *size)
    x, y, width, height = cut.box
    scale = 1 if mpp is None else cut.region.mpp / mpp
    left, top, right, lower = (round(edge * scale) for edge in (x, y, x + width, y + height))
    return left, top, max(1, right - left), max(1, lower - top)


def _entry(region: Source, mpp: float | None) -> dict[str, Any]:
    return region.entry(mpp)


def _existing(output: Path, options: dict[str, Any], sources: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The manifest in ``output`` where it was made from the same options and sources; None where there is nothing."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / MANIFEST).is_file():
        raise InputError(f"{output}: is there already and holds no prepared dataset; choose another --output.")
    manifest = read_manifest(output)
    before = manifest["options"]
    for name in sorted(before.keys() | options.keys()):
        if before.get(name) != options.get(name):
            raise InputError(
                f"{output}: was prepared with {name}={before.get(name)}, not {options.get(name)}; "
                "choose another --output or delete it."
            )
    if manifest["sources"] != sources:
        raise InputError(f"{output}: was prepared from other source files; choose another --output or delete it.")
    for tile in manifest["tiles"]:
        if "image" in tile:
            check_tile(output, tile)
    return manifest


def _cut(cut: Cut, output: Path, tiling: Tiling) -> list[dict[str, Any]]:
    region, size = cut.region, tiling.tile_size
    image, codes = region.read(tiling.mask_coding, tiling.mpp)
    left, top, width, height = box = _box(cut, (codes.shape[1], codes.shape[0]), tiling.mpp)
    tiles = []
    for x, y in tiling.corners(box, cut.overlap):
        inside = slice(y, min(y + size, top + height)), slice(x, min(x + size, left + width))
        tile_codes = filled(codes[inside], size)
        counts = np.bincount(tile_codes.ravel(), minlength=len(CODE_NAMES))
        if 1 - counts[list(UNANNOTATED)].sum() / size**2 < tiling.min_annotated:
            continue
        tile = {"split": cut.split, "patient": region.patient, "roi": region.name, "x": x, "y": y}
        if region.image_label is not None:
            tile["image_label"] = list(region.image_label)
        tile["code_pixels"] = {str(code): int(count) for code, count in enumerate(counts) if count}
        if image is not None:
            name = f"{region.name}_x{x}_y{y}"
            tile |= _written(output, f"images/{name}{tiling.ending}", "image", filled(image[inside], size))
            tile |= _written(output, f"masks/{name}.png", "mask", tile_codes)
        tiles.append(tile)
    return tiles


def _written(output: Path, name: str, kind: str, pixels: np.ndarray) -> dict[str, Any]:
    # Stained tissue has no repeats for zlib to find: run lengths alone give the same size in a fourth of the time.
    options = {"compress_type": zlib.Z_RLE} if kind == "image" and name.endswith(".png") else {}
    Image.fromarray(pixels).save(output / name, **options)
    written = (output / name).read_bytes()
    return {kind: name, f"{kind}_bytes": len(written), f"{kind}_crc32": zlib.crc32(written)}
