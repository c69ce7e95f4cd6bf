"""Cut annotated regions into tiles and write the dataset: images, masks in BCSS codes, manifest."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lightmuseg import __version__
from lightmuseg.errors import InputError
from lightmuseg.record import sha256_of, whole_folder, write_json

from .bcss import CODE_NAMES, UNANNOTATED, Region, to_codes
from .images import image_size, read_codes, read_rgb
from .manifest import FORMAT, MANIFEST, check_tile, read_manifest


@dataclass(frozen=True)
class Cut:
    """A rectangle of a region that goes into one split whole; ``box`` is (x, y, width, height) in its pixels."""

    region: Region
    split: str
    box: tuple[int, int, int, int] | None = None


def tile_starts(length: int, tile_size: int) -> list[int]:
    """Starts of the fewest tiles that cover ``length`` pixels, evenly spread: neighbours overlap where they must.

    >>> tile_starts(1024, 512), tile_starts(1100, 512), tile_starts(300, 512)
    ([0, 512], [0, 294, 588], [0])
    """
    count = max(1, -(-length // tile_size))
    return [round(index * max(0, length - tile_size) / max(1, count - 1)) for index in range(count)]


def write_dataset(
    cuts: Sequence[Cut],
    output: Path,
    options: dict[str, Any],
    tile_size: int = 512,
    mask_coding: str = "bcss",
    min_annotated: float = 0.0,
) -> dict[str, Any]:
    """Write the tiles of ``cuts`` to ``output``, or do nothing where they are there already.

    A tile is the exact crop of its region; where the region is smaller than a tile it is filled up with white and
    the code outside_roi. ``output`` appears when it is complete.

    Args:
        cuts: what to cut, with the split of each.
        output: new folder, or one that an earlier call wrote.
        options: recorded in the manifest; an existing ``output`` must have been made with the same.
        tile_size: side in pixels.
        mask_coding: a key of :data:`.bcss.MASK_CODINGS`.
        min_annotated: tiles with a smaller share of annotated pixels are left out.

    Returns:
        The manifest.

    Raises:
        InputError: for an unreadable, mismatched or unknown source, an ``output`` of other content, or a full disk.
    """
    output = output.resolve()
    sources = [_source(region) for region in dict.fromkeys(cut.region for cut in cuts)]
    existing = _existing(output, options, sources)
    if existing is not None:
        return existing

    # RGB and mask without compression, and as much again for tiles that overlap
    pixels = sum(width * height for width, height in (image_size(cut.region.image) for cut in cuts))
    with whole_folder(output, 8 * pixels) as folder:
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        cut = partial(_cut, output=folder, tile_size=tile_size, mask_coding=mask_coding, least=min_annotated)
        workers = min(os.cpu_count() or 1, len(cuts))
        with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
            tiles = [tile for made in tqdm(pool.map(cut, cuts), "cutting", len(cuts), unit="region") for tile in made]
        if not tiles:
            raise InputError(f"no tile has {min_annotated:.0%} of its pixels annotated; lower --min_annotated.")
        manifest = {
            "format": FORMAT,
            "lightmuseg": __version__,
            "options": options,
            "tile_size": tile_size,
            "codes": dict(enumerate(CODE_NAMES)),
            "sources": sources,
            "tiles": tiles,
        }
        write_json(folder / MANIFEST, manifest)
    return manifest


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed, so that nothing writes behind a later run's back."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _source(region: Region) -> dict[str, Any]:
    return {
        "roi": region.name,
        "patient": region.patient,
        "x0": region.x0,
        "y0": region.y0,
        "mpp": region.mpp,
        "image": region.image.name,
        "image_sha256": sha256_of(region.image),
        "mask": region.mask.name,
        "mask_sha256": sha256_of(region.mask),
    }


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
        check_tile(output, tile)
    return manifest


def _cut(cut: Cut, output: Path, tile_size: int, mask_coding: str, least: float) -> list[dict[str, Any]]:
    region = cut.region
    image = read_rgb(region.image)
    values = read_codes(region.mask)
    if image.shape[:2] != values.shape:
        raise InputError(
            f"{region.mask}: is {values.shape[1]} x {values.shape[0]} pixels, its image {region.image.name} is "
            f"{image.shape[1]} x {image.shape[0]}; they must be of one size."
        )
    codes = to_codes(values, mask_coding, region.mask)
    x, y, width, height = cut.box or (0, 0, image.shape[1], image.shape[0])
    tiles = []
    for yt in tile_starts(height, tile_size):
        for xt in tile_starts(width, tile_size):
            corner = (x + xt, y + yt)
            inside = (slice(corner[1], min(corner[1] + tile_size, y + height)),
                      slice(corner[0], min(corner[0] + tile_size, x + width)))  # fmt: skip
            tile_codes = _filled(codes[inside], tile_size, 0)
            if 1 - np.isin(tile_codes, UNANNOTATED).mean() < least:
                continue
            tiles.append(_write_tile(cut, corner, _filled(image[inside], tile_size, 255), tile_codes, output))
    return tiles


def _filled(pixels: np.ndarray, tile_size: int, value: int) -> np.ndarray:
    missing = [(0, tile_size - pixels.shape[0]), (0, tile_size - pixels.shape[1])] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, missing, constant_values=value)


def _write_tile(
    cut: Cut, corner: tuple[int, int], image: np.ndarray, codes: np.ndarray, output: Path
) -> dict[str, Any]:
    name = f"{cut.region.name}_x{corner[0]}_y{corner[1]}.png"
    tile = {"image": f"images/{name}", "mask": f"masks/{name}", "split": cut.split, "patient": cut.region.patient,
            "roi": cut.region.name, "x": corner[0], "y": corner[1]}  # fmt: skip
    for kind, pixels in (("image", image), ("mask", codes)):
        path = output / tile[kind]
        Image.fromarray(pixels).save(path)
        tile[f"{kind}_bytes"] = path.stat().st_size
    present, counts = np.unique(codes, return_counts=True)
    tile["code_pixels"] = {str(code): int(count) for code, count in zip(present, counts)}
    return tile
