"""Datasets from their published folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError

from .bcss import MASK_CODINGS, find_regions
from .bcss_wsss import PATCH_SIZE, PSEUDO_LABELS, find_patches
from .parallel import Progress
from .split import plan_split
from .tiles import TILE_ENDINGS, Cut, Tiling, write_dataset


def prepare_bcss(
    source: Path,
    output: Path,
    masks: str = "masks",
    mask_coding: str = "bcss",
    tile_size: int = 512,
    overlap: float = 0.0,
    min_annotated: float = 0.0,
    tile_files: str = "png",
    mpp: float | None = None,
    tile_mpp: float | None = None,
    progress: Progress | None = None,
    **split_options: Any,
) -> dict[str, Any]:
    """Write a BCSS folder as a prepared dataset, split by patient; see ``lightmuseg prepare bcss --help``.

    Args:
        source: holds one folder rgbs* and a folder of masks.
        output: the dataset's folder.
        masks: name of the folder of masks.
        mask_coding, tile_size, overlap, min_annotated: as of :class:`.tiles.Tiling`.
        tile_files: a key of :data:`.tiles.TILE_ENDINGS`, or "none" to write the manifest only, from the masks alone.
        mpp: what the pictures truly have, um/px; None for what :func:`.bcss.rendered_mpp` makes of their names.
        tile_mpp: um/px of the tiles, as ``mpp`` of :class:`.tiles.Tiling`.
        progress: as of :func:`.tiles.write_dataset`.
        split_options: as of :func:`.split.plan_split`.

    Returns:
        The manifest.

    Raises:
        InputError: for options or files that cannot be used.
    """
    if mask_coding not in MASK_CODINGS:
        raise InputError(f"mask_coding={mask_coding!r} is not known; one of {', '.join(MASK_CODINGS)}.")
    if tile_size < 32 or tile_size % 32:
        raise InputError(f"tile_size={tile_size} must be a multiple of 32 pixels.")
    if not 0 <= min_annotated <= 1:
        raise InputError(f"min_annotated={min_annotated} must be a share between 0 and 1.")
    if not 0 <= overlap <= 0.9:
        raise InputError(f"overlap={overlap} must be a share between 0 and 0.9.")
    if tile_files not in (*TILE_ENDINGS, "none"):
        raise InputError(f"tile_files={tile_files!r} is not known; one of {', '.join(TILE_ENDINGS)}, none.")
    regions = find_regions(source, masks, images=tile_files != "none", mpp=mpp)
    split, used = plan_split((region.patient for region in regions), **split_options)
    options = {
        "dataset": "bcss",
        "masks": masks,
        "mask_coding": mask_coding,
        "tile_size": tile_size,
        "overlap": overlap,
        "min_annotated": min_annotated,
        "tile_files": tile_files,
        "mpp": mpp,
        "tile_mpp": tile_mpp,
        **used,
    }
    cuts = [Cut(region, split[region.patient]) for region in regions]
    tiling = Tiling(tile_size, overlap, min_annotated, mask_coding, TILE_ENDINGS.get(tile_files, ""), tile_mpp)
    return write_dataset(cuts, output, options, tiling, progress)


def prepare_bcss_wsss(
    source: Path,
    output: Path,
    pseudo_labels: str = PSEUDO_LABELS,
    mpp: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write BCSS-WSSS as a prepared dataset with its published splits, which patients cross.

    Args:
        source: holds training/ (or train/), val/ and test/.
        output: the dataset's folder.
        pseudo_labels: folder of the training patches' masks, in ``source`` or a whole path.
        mpp: what the patches truly have, um/px; None for that of BCSS's regions, as of :func:`prepare_bcss`.
        progress: as of :func:`.tiles.write_dataset`.

    Returns:
        The manifest; each training tile has an ``image_label``, and ``tiles_denied_by_image_label`` counts those
        whose mask shows a class that it says is not there.

    Raises:
        InputError: for files that cannot be used.
    """
    options = {"dataset": "bcss-wsss", "pseudo_labels": pseudo_labels, "mpp": mpp, "split": "published"}
    cuts = [Cut(region, split) for split, region in find_patches(source, pseudo_labels, mpp)]
    return write_dataset(cuts, output, options, Tiling(PATCH_SIZE, mask_coding="bcss-wsss"), progress)
