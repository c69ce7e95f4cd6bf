"""Datasets from their published folders, and from annotated slides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.wsi.tiff import checked_mpp

from .annotated_slides import AnnotatedSlide, find_annotated
from .bcss import MASK_CODINGS, find_regions
from .bcss_wsss import PATCH_SIZE, PSEUDO_LABELS, find_patches
from .class_names import codes_of, unused_of
from .parallel import Progress, each
from .slide_regions import UNANNOTATED_IS, UNKNOWN_REMEDY, Reading, SlideRegion, regions_on
from .split import plan_split
from .tiles import TILE_ENDINGS, Cut, Tiling, write_dataset

logger = logging.getLogger(__name__)

# Pixels of the side of a tile; no network is trained on larger ones.
MAX_TILE_SIZE = 16_384


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
    _check_options(mask_coding, tile_size, overlap, min_annotated, tile_files, (*TILE_ENDINGS, "none"))
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


def _check_options(
    mask_coding: str, tile_size: int, overlap: float, min_annotated: float, tile_files: str, kinds: Sequence[str]
) -> None:
    if mask_coding not in MASK_CODINGS:
        raise InputError(f"mask_coding={mask_coding!r} is not known; one of {', '.join(MASK_CODINGS)}.")
    if not 32 <= tile_size <= MAX_TILE_SIZE or tile_size % 32:
        raise InputError(f"tile_size={tile_size} must be a multiple of 32 pixels, at most {MAX_TILE_SIZE}.")
    if not 0 <= min_annotated <= 1:
        raise InputError(f"min_annotated={min_annotated} must be a share between 0 and 1.")
    if not 0 <= overlap <= 0.9:
        raise InputError(f"overlap={overlap} must be a share between 0 and 0.9.")
    if tile_files not in kinds:
        raise InputError(f"tile_files={tile_files!r} is not known; one of {', '.join(kinds)}.")


def prepare_annotations(
    slides: Path,
    annotations: Path,
    output: Path,
    classes: Mapping[str, Sequence[int]] | None = None,
    unannotated: str = "ignore",
    patients: Path | None = None,
    mask_coding: str = "bcss",
    mpp: float | None = None,
    tile_mpp: float | None = None,
    tile_size: int = 512,
    overlap: float = 0.0,
    min_annotated: float = 0.02,
    tile_files: str = "png",
    progress: Progress | None = None,
    **split_options: Any,
) -> dict[str, Any]:
    """Write annotated slides as a prepared dataset, split by patient; see ``lightmuseg prepare annotations --help``.

    Args:
        slides, annotations, patients: as of :func:`.annotated_slides.find_annotated`.
        output: the dataset's folder.
        classes, unannotated, mask_coding: as of :class:`.slide_regions.Reading`.
        mpp: um/px of level 0 of slides that do not state theirs, or not one that can be used.
        tile_mpp: um/px of the tiles; None for that of the package's own model.
        tile_size, overlap, min_annotated: as of :class:`.tiles.Tiling`.
        tile_files: a key of :data:`.tiles.TILE_ENDINGS`.
        progress: as of :func:`.tiles.write_dataset`.
        split_options: as of :func:`.split.plan_split`.

    Returns:
        The manifest.

    Raises:
        InputError: for options or files that cannot be used.
    """
    _check_options(mask_coding, tile_size, overlap, min_annotated, tile_files, tuple(TILE_ENDINGS))
    names = {name: tuple(codes) for name, codes in (classes or {}).items()}
    tile_mpp = _model_mpp() if tile_mpp is None else tile_mpp
    reading = Reading(tile_mpp, mpp, tuple(names.items()), unannotated, mask_coding)
    _check_reading(reading, slides, output)
    found = find_annotated(slides, annotations, patients, skipped=output)
    cut = _annotated_regions(found, annotations, reading, tile_size, progress)
    split, used = plan_split((region.patient for region in cut), **split_options)
    options = {
        "dataset": "annotations",
        "classes": {name: list(codes) for name, codes in sorted(names.items())},
        "unannotated": unannotated,
        "mask_coding": mask_coding,
        "mpp": mpp,
        "tile_mpp": tile_mpp,
        "tile_size": tile_size,
        "overlap": overlap,
        "min_annotated": min_annotated,
        "tile_files": tile_files,
        **used,
    }
    cuts = [Cut(region, split[region.patient]) for region in cut]
    tiling = Tiling(tile_size, overlap, min_annotated, mask_coding, TILE_ENDINGS[tile_files])
    return write_dataset(cuts, output, options, tiling, progress)


def _check_reading(reading: Reading, slides: Path, output: Path) -> None:
    if reading.unannotated not in UNANNOTATED_IS:
        raise InputError(f"unannotated={reading.unannotated!r} is not known; one of {', '.join(UNANNOTATED_IS)}.")
    checked_mpp(output, reading.mpp, "--tile_mpp")
    if reading.slide_mpp is not None:
        checked_mpp(slides, reading.slide_mpp, "--mpp")


def _model_mpp() -> float:
    """um/px of the model that comes with the package."""
    # PyTorch takes seconds to import
    from lightmuseg.models.model import Model

    return Model.open().card.mpp


def _annotated_regions(
    found: Sequence[AnnotatedSlide], annotations: Path, reading: Reading, tile_size: int, progress: Progress | None
) -> list[SlideRegion]:
    """What is annotated on the slides, whose classes are all known."""
    regions_of = partial(regions_on, reading=reading, tile_size=tile_size)
    regions, names_of = zip(*each(regions_of, found, "reading annotations", progress))
    names, classes = set().union(*names_of), dict(reading.classes)
    codes_of(names, classes, str(annotations), UNKNOWN_REMEDY)
    if unused := unused_of(classes, names):
        logger.warning(f"{annotations}: no object is of the class {', '.join(unused)[:200]} that --classes names.")
    if not any(regions):
        raise InputError(f"{annotations}: nothing is annotated on any slide; see the warnings above.")
    return [region for of_slide in regions for region in of_slide]


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
