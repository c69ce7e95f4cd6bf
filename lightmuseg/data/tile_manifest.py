"""A prepared dataset: a folder of tiles and the manifest that describes them."""

from __future__ import annotations

import logging
import statistics
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.text_files import read_json
from lightmuseg.wsi.tiff import MPP_RANGE

from .bcss import CODE_NAMES, rendered_mpp

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 2
# of a million tiles
MAX_BYTES = 500_000_000
# What each entry has; a tile has the files where there are files.
SOURCE = {
    "roi": str, "patient": str, "x0": (int, NoneType), "y0": (int, NoneType), "mpp": (float, int),
    "picture_mpp": (float, int), "width": int, "height": int, "mask": str, "mask_sha256": str,
}  # fmt: skip
TILE = {"split": str, "patient": str, "roi": str, "x": int, "y": int, "code_pixels": dict}
TILE_FILES = {"image": str, "image_bytes": int, "mask": str, "mask_bytes": int}


def read_manifest(dataset_dir: str | Path) -> dict[str, Any]:
    """The manifest of a prepared dataset.

    Its ``mpp`` is the true um/px of the tiles. One that was written before this was recorded gets it from its regions,
    of BCSS by :func:`.bcss.rendered_mpp`.

    Raises:
        InputError: where there is none, or it is not one of this format.
    """
    path = Path(dataset_dir) / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{dataset_dir}: no prepared tiles here (no {MANIFEST}); run 'lightmuseg prepare demo' or "
            "'lightmuseg prepare bcss', or name their output with --dataset_dir."
        )
    manifest = read_json(path, "prepare the dataset again", MAX_BYTES)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: not a manifest of format {FORMAT}; prepare the dataset again.")
    try:
        if "mpp" not in manifest:
            _add_scale(manifest, path)
        _check(manifest)
    except ValueError as error:
        raise InputError(f"{path}: {error}; prepare the dataset again.") from error
    return manifest


def _add_scale(manifest: dict[str, Any], path: Path) -> None:
    """Complete a manifest that says only what the names of its regions say; raise a ValueError as :func:`_check`."""
    _check_types("the manifest", manifest, {"options": dict, "sources": list})
    of_bcss = manifest["options"].get("dataset") in ("bcss", "bcss-wsss")
    for number, source in enumerate(manifest["sources"]):
        _check_types(f"source {number}", source, {"mpp": (float, int)})
        source["mpp"] = rendered_mpp(source["mpp"]) if of_bcss else source["mpp"]
        source["picture_mpp"] = source["mpp"]
    manifest["mpp"] = statistics.median_low(source["mpp"] for source in manifest["sources"])
    _say_assumed(path, manifest["mpp"])


@lru_cache
def _say_assumed(path: Path, mpp: float) -> None:
    """Say once what is assumed of an old manifest."""
    logger.warning(f"{path}: does not say its um/px, {mpp:g} is assumed; where it is another, prepare it again.")


def _check(manifest: dict[str, Any]) -> None:
    """Raise a ValueError that names the first value of a manifest which cannot be."""
    fields = {"options": dict, "tile_size": int, "mpp": (float, int), "sources": list, "tiles": list}
    _check_types("the manifest", manifest, fields)
    _check_scale("the manifest", manifest["mpp"])
    sizes = {}
    for number, source in enumerate(manifest["sources"]):
        _check_types(f"source {number}", source, SOURCE)
        if "source" in source:
            _check_types(f"source {number}", source, {"source": str})
        _check_scale(f"source {number}", source["mpp"], source["picture_mpp"])
        sizes[source["roi"]] = source["width"], source["height"]
    has_files = any(isinstance(tile, dict) and "image" in tile for tile in manifest["tiles"])
    fields = TILE | (TILE_FILES if has_files else {})
    codes = set(map(str, range(len(CODE_NAMES))))
    for number, tile in enumerate(manifest["tiles"]):
        _check_types(f"tile {number}", tile, fields)
        width, height = sizes.get(tile["roi"], (0, 0))
        if not (0 <= tile["x"] < width and 0 <= tile["y"] < height):
            raise ValueError(f"tile {number} lies at {tile['x']}, {tile['y']}, in no region of the sources")
        counts = tile["code_pixels"]
        if not counts.keys() <= codes or not all(type(count) is int and count > 0 for count in counts.values()):
            raise ValueError(f"tile {number} has the code_pixels {str(counts)[:80]}, no numbers of pixels by code")


def _check_scale(what: str, *mpps: float) -> None:
    for mpp in mpps:
        if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
            raise ValueError(f"{what} has the um/px {mpp}, outside {MPP_RANGE[0]} to {MPP_RANGE[1]}")


def _check_types(what: str, entry: Any, fields: dict[str, Any]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is {str(entry)[:80]!r}, no object")
    for name, kind in fields.items():
        value = entry.get(name)
        if name not in entry or not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{what} has the {name} {str(value)[:80]!r}")


def tiles_of_split(dataset_dir: str | Path, split: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The manifest of a prepared dataset, and the entries of the tiles of one split in it.

    Raises:
        InputError: where there is no manifest or no tile in the split.
    """
    manifest = read_manifest(dataset_dir)
    tiles = [tile for tile in manifest["tiles"] if tile["split"] == split]
    if not tiles:
        there = ", ".join(sorted({tile["split"] for tile in manifest["tiles"]}))
        raise InputError(
            f"{dataset_dir}: has no tiles in the split {split!r}; prepare it with more patients, or choose one of its "
            f"splits: {there}."
        )
    return manifest, tiles


def tiles_by_region(tiles: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Entries of tiles by the name of their region."""
    found: dict[str, list[dict[str, Any]]] = {}
    for tile in tiles:
        found.setdefault(tile["roi"], []).append(tile)
    return found


def load_tiles(dataset_dir: str | Path, split: str, source: str | None = None) -> list[dict[str, Any]]:
    """The tiles of one split as MONAI data dictionaries with the paths ``image`` and ``label``.

    Each also has ``patient``, ``source``, ``roi``, ``x`` and ``y`` (the tile's left upper corner in pixels of its
    region), ``region_width`` and ``region_height``, by which predictions can be put together again. Tiles of a region
    stand together, row by row.

    Every file is read once and compared with the size and the CRC-32 that it was written with, so that a broken
    dataset shows before training starts. Manifests that ``prepare`` wrote before it noted CRC-32 have sizes alone.

    Args:
        dataset_dir: what ``lightmuseg prepare`` wrote.
        split: "train", "val" or "test".
        source: of whose regions alone the tiles are wanted, which may be none.

    Raises:
        InputError: where there is no manifest or no tile in the split, the dataset was prepared without tile files,
            or a file is missing or was changed.
    """
    root = Path(dataset_dir)
    manifest, tiles = tiles_of_split(root, split)
    sources = {entry["roi"]: entry for entry in manifest["sources"]}
    if source is not None:
        tiles = [tile for tile in tiles if sources[tile["roi"]].get("source") == source]
    if tiles and "image" not in tiles[0]:
        raise InputError(f"{root}: holds no tile files (--tile_files none); train on it with train_wsi.json.")
    # side by side, since a network's disk answers slowly
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(check_tile, root), tiles))
    return [
        {"image": str(root / tile["image"]), "label": str(root / tile["mask"]), **place_of(tile, sources[tile["roi"]])}
        for tile in tiles
    ]


def place_of(tile: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Where a tile of the manifest lies, in pixels of its region; ``source`` is the region's entry."""
    place = {key: tile[key] for key in ("patient", "roi", "x", "y")} | {"source": source.get("source", "")}
    return place | {"region_width": source["width"], "region_height": source["height"]}


def check_tile(root: Path, tile: dict[str, Any]) -> None:
    """Raise an InputError unless both files of a tile are there as they were written."""
    for kind in ("image", "mask"):
        name = PurePosixPath(tile[kind])
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{root / MANIFEST}: names {tile[kind]}, outside its folder; prepare the dataset again.")
        path = root / name
        size = path.stat().st_size if path.is_file() else None
        if size != tile[f"{kind}_bytes"]:
            state = "is missing" if size is None else f"has {size} bytes, not {tile[f'{kind}_bytes']}"
            raise InputError(f"{path}: {state}; delete {root} and prepare the dataset again.")
        if f"{kind}_crc32" in tile and zlib.crc32(path.read_bytes()) != tile[f"{kind}_crc32"]:
            raise InputError(
                f"{path}: differs from what was written (CRC-32); delete {root} and prepare the dataset again."
            )


def manifest_hash(dataset_dir: str | Path) -> str:
    """SHA-256 of a prepared dataset's manifest, which stands for its tiles.

    Raises:
        InputError: where there is none.
    """
    read_manifest(dataset_dir)
    return sha256_of(Path(dataset_dir) / MANIFEST)


def dataset_mpp(dataset_dir: str | Path) -> float:
    """True um/px of a prepared dataset's tiles.

    Raises:
        InputError: where there is no manifest.
    """
    return float(read_manifest(dataset_dir)["mpp"])


def dataset_tile_size(dataset_dir: str | Path) -> int:
    """Side of a prepared dataset's tiles in pixels.

    Raises:
        InputError: where there is no manifest.
    """
    return int(read_manifest(dataset_dir)["tile_size"])


def warn_of_absent_classes(
    dataset_dir: str | Path,
    splits: Sequence[str],
    classes: Mapping[str, Sequence[int]],
    merged_codes: Mapping[str, int] | None = None,
) -> None:
    """Log a warning for each class that no tile of a split holds.

    Args:
        dataset_dir: what ``lightmuseg prepare`` wrote.
        splits: to look at.
        classes, merged_codes: as of :class:`.CodesToClassesd`.

    Raises:
        InputError: where there is no manifest.
    """
    merged = {int(code): int(other) for code, other in (merged_codes or {}).items()}
    tiles = read_manifest(dataset_dir)["tiles"]
    for split in dict.fromkeys(splits):
        found = {int(code) for tile in tiles if tile["split"] == split for code in tile["code_pixels"]}
        found = {merged.get(code, code) for code in found}
        consequence = "its scores are nan where nothing is to be scored, and are left out of the means"
        if split == "train":
            consequence = "the network cannot learn it"
        for name, codes in classes.items():
            if found.isdisjoint(codes):
                logger.warning(
                    f"{dataset_dir}: no tile of the split {split!r} holds the class {name} "
                    f"(codes {', '.join(map(str, codes))}): {consequence}."
                )
