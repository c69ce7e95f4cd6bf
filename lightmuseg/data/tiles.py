"""Cut annotated regions into tiles and write the dataset: images, masks in BCSS codes, manifest."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightmuseg import __version__
from lightmuseg.errors import InputError
from lightmuseg.files import whole_folder
from lightmuseg.provenance import sha256_of
from lightmuseg.text_files import write_json
from lightmuseg.wsi.images import image_size, read_rgb

from .bcss import CODE_NAMES, CODES, UNANNOTATED, Region, read_mask
from .parallel import Progress, each
from .tile_manifest import FORMAT, MANIFEST, check_tile, read_manifest

# Kinds of image files, all lossless. PNG is half the size; TIFF, not compressed, is read in 0.6 ms instead of 8.
TILE_ENDINGS = {"png": ".png", "tiff": ".tif"}
# What a tile takes beyond its pixels: in the manifest, and in disk blocks that it does not fill.
BYTES_PER_ENTRY = 10_000


@dataclass(frozen=True)
class Cut:
    """A rectangle of a region that goes into one split whole; ``box`` is (x, y, width, height) in its pixels."""

    region: Region
    split: str
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Tiling:
    """How regions are cut into tiles.

    Attributes:
        tile_size: side of a tile in pixels.
        overlap: share of a tile that neighbours have in common at least.
        min_annotated: tiles with a smaller share of annotated pixels are left out.
        mask_coding: of the masks, a key of :data:`.bcss.MASK_CODINGS`.
        ending: of the images' files, a value of ``TILE_ENDINGS``; masks are PNG.
    """

    tile_size: int = 512
    overlap: float = 0.0
    min_annotated: float = 0.0
    mask_coding: str = "bcss"
    ending: str = ".png"

    def corners(self, box: tuple[int, int, int, int]) -> Iterator[tuple[int, int]]:
        """The left upper corners (x, y) of the tiles that cover a box (x, y, width, height), row by row."""
        x, y, width, height = box
        for y_tile in even_tile_starts(height, self.tile_size, self.overlap):
            for x_tile in even_tile_starts(width, self.tile_size, self.overlap):
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

    A tile is the exact crop of its region; where the region is smaller than a tile it is filled up with its picture
    mirrored and the code outside_roi. Of regions without an image only the manifest is written. ``output`` appears
    when it is complete.

    Args:
        cuts: what to cut, with the split of each.
        output: new folder, or one that an earlier call wrote.
        options: recorded in the manifest; an existing ``output`` must have been made with the same.
        tiling: how to cut.
        progress: is called with a step and its regions that are done and all of them.

    Returns:
        The manifest.

    Raises:
        InputError: for an unreadable, mismatched or unknown source, an ``output`` of other content, or a full disk.
    """
    output = output.resolve()
    sources = each(_source, list(dict.fromkeys(cut.region for cut in cuts)), "reading sources", progress)
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
            "codes": dict(enumerate(CODE_NAMES)),
            "sources": sources,
            "tiles": tiles,
        }
        labelled = [tile for tile in tiles if "image_label" in tile]
        if labelled:
            manifest["tiles_denied_by_image_label"] = sum(map(_is_denied, labelled))
        write_json(folder / MANIFEST, manifest)
    return manifest


def _is_denied(tile: dict[str, Any]) -> bool:
    """Whether a tile's mask shows a class that its image-level label says is not there."""
    return bool({int(code) for code in tile["code_pixels"]} - {*tile["image_label"], *UNANNOTATED})


def _needed_bytes(cuts: Sequence[Cut], sources: list[dict[str, Any]], tiling: Tiling) -> int:
    """The dataset's size were its tiles not compressed."""
    size_of = {source["roi"]: (source["width"], source["height"]) for source in sources}
    boxes = [cut.box or (0, 0, *size_of[cut.region.name]) for cut in cuts]
    tiles = sum(1 for box in boxes for _ in tiling.corners(box))
    rgb_and_mask = 0 if cuts[0].region.image is None else 4 * tiling.tile_size**2
    return tiles * (rgb_and_mask + BYTES_PER_ENTRY)


def _source(region: Region) -> dict[str, Any]:
    width, height = image_size(region.image or region.mask)
    source = {"roi": region.name} | {name: getattr(region, name) for name in ("patient", "x0", "y0", "mpp")}
    source |= {"width": width, "height": height}
    for kind, path in region.files.items():
        source |= {kind: path.name, f"{kind}_sha256": sha256_of(path)}
    return source


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
    codes = read_mask(region.mask, tiling.mask_coding)
    height, width = codes.shape
    image = None if region.image is None else read_rgb(region.image)
    if image is not None and image.shape[:2] != codes.shape:
        raise InputError(
            f"{region.mask}: is {width} x {height} pixels, its image {region.image.name} is "
            f"{image.shape[1]} x {image.shape[0]}; they must be of one size."
        )
    left, top, width, height = box = cut.box or (0, 0, width, height)
    tiles = []
    for x, y in tiling.corners(box):
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
