"""Proof that a prepared dataset is what its source says: every tile, every file, every patient."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.images import read_codes, read_rgb

from .bcss import Region, find_regions
from .bcss_wsss import find_patches
from .parallel import Progress, each
from .tile_manifest import check_tile, read_manifest, tiles_by_region


def check_dataset(source: Path, output: Path, progress: Progress | None = None) -> str:
    """Compare a prepared dataset with its source, pixel by pixel, and its splits with its patients.

    The tiles are decoded and held against crops that this module takes from the source's files on its own, resampled
    where the tiles were. Patients in two splits are a fault, but for published splits, where they are counted.

    Args:
        source: the folder the dataset was prepared from.
        output: the dataset's folder, of ``lightmuseg prepare bcss`` or ``bcss-wsss``.
        progress: is called with a step and its regions that are done and all of them.

    Returns:
        One line with the numbers proved.

    Raises:
        InputError: for the first tile, file or patient that is not as it must be.
    """
    manifest = read_manifest(output)
    options = manifest["options"]
    if options["dataset"] == "bcss-wsss":
        regions = [patch for _, patch in find_patches(source, options["pseudo_labels"], options.get("mpp"))]
        coding = "bcss-wsss"
    else:
        regions = find_regions(source, options["masks"], options["tile_files"] != "none", options.get("mpp"))
        coding = options["mask_coding"]
    patients = _patients(output, manifest["tiles"], regions, published=options["split"] == "published")
    entries = {entry["roi"]: entry for entry in manifest["sources"]}
    tiles_of = tiles_by_region(manifest["tiles"])
    work = [(region, entries.get(region.name), tiles_of.get(region.name, [])) for region in regions]
    size, mpp = manifest["tile_size"], options.get("tile_mpp")
    compare = partial(_compare, output=output, size=size, coding=coding, mpp=mpp)
    files = sum(each(compare, work, "checking", progress))
    held = "equal" if "image" in manifest["tiles"][0] else "have the pixel counts of"
    return (
        f"{output}: {len(manifest['tiles'])} tiles {held} their crops of {len(regions)} regions, {files} source files "
        f"have the recorded SHA-256, {patients}"
    )


def _patients(output: Path, tiles: list[dict[str, Any]], regions: Sequence[Region], published: bool) -> str:
    patient_of = {region.name: region.patient for region in regions}
    splits: dict[str, set[str]] = {}
    for tile in tiles:
        if patient_of.get(tile["roi"]) != tile["patient"]:
            raise InputError(
                f"{output}: has a tile of patient {tile['patient']} from {tile['roi']}, which is not that patient's "
                "region in the source; prepare the dataset again."
            )
        splits.setdefault(tile["patient"], set()).add(tile["split"])
    crossing = sorted(patient for patient, found in splits.items() if len(found) > 1)
    if crossing and not published:
        raise InputError(
            f"{output}: patient {crossing[0]} is in the splits {', '.join(sorted(splits[crossing[0]]))}; "
            "prepare the dataset again."
        )
    count = f"{len(crossing)} in more than one split, as published" if published else "none in more than one split"
    return f"{len(splits)} patients, {count}"


def _compare(
    work: tuple[Region, dict[str, Any] | None, list[dict[str, Any]]],
    output: Path,
    size: int,
    coding: str,
    mpp: float | None,
) -> int:
    """Compare one region's files and tiles with the manifest; the number of files it has."""
    region, entry, tiles = work
    for kind, path in region.files.items():
        if entry is None or sha256_of(path) != entry[f"{kind}_sha256"]:
            raise InputError(f"{path}: is not the file that {output} was prepared from; prepare the dataset again.")
    # cropped by Pillow, and not as the tiles were cut
    pixels, codes = (part if part is None else Image.fromarray(part) for part in region.read(coding, mpp))
    if (entry["width"], entry["height"]) != codes.size:
        raise InputError(f"{output}: says another size than {region.mask} has; prepare the dataset again.")
    sources = {"mask": (codes, 0, read_codes)}
    if pixels is not None:
        sources["image"] = pixels, (255, 255, 255), read_rgb
    for tile in tiles:
        place = f"x {tile['x']}, y {tile['y']} of {tile['roi']}"
        counts = {str(code): n for code, n in enumerate(_crop(codes, tile, size, 0).histogram()) if n}
        if tile["code_pixels"] != counts:
            raise InputError(f"{output}: counts other pixels at {place} than {region.mask} has.")
        if region.image is None:
            continue
        check_tile(output, tile)
        for kind, (picture, fill, read) in sources.items():
            path = output / tile[kind]
            if not np.array_equal(read(path), np.asarray(_crop(picture, tile, size, fill))):
                raise InputError(
                    f"{path}: differs from {region.files[kind]} at {place}; delete the dataset and prepare it again."
                )
    return len(region.files)


def _crop(image: Image.Image, tile: dict[str, Any], size: int, fill: int | tuple[int, int, int]) -> Image.Image:
    x, y = tile["x"], tile["y"]
    whole = Image.new(image.mode, (size, size), fill)
    whole.paste(image.crop((x, y, min(x + size, image.width), min(y + size, image.height))))
    return whole
