"""The BCSS-WSSS dataset: patches of BCSS whose training part has labels of the whole image only."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError

from .bcss import CODES, Region, name_parts, regions_of

PATCH_SIZE = 224
# Where the authors' public code puts the pseudo-labels of the network's last layer.
PSEUDO_LABELS = "train_PM/PM_bn7"
# The classes of the image-level label [abcd], in its order.
LABEL_CODES = tuple(CODES[name] for name in ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris"))

_PATCH = re.compile(r"(?P<region>.+)\+\d+(?:\[(?P<label>[01]{4})\])?$")


def find_patches(
    source: Path, pseudo_labels: str = PSEUDO_LABELS, mpp: float | None = None
) -> list[tuple[str, Region]]:
    """The patches of a BCSS-WSSS folder with their published split; each is a region of its own.

    A patch's place in its slide is not known. Its name is that of its file with the split before it, because the
    splits count their patches each from 0.

    Args:
        source: holds ``training`` (or ``train``) with images whose names end in ``+index[abcd]``, and ``val`` and
            ``test`` with the folders ``img`` and ``mask``.
        pseudo_labels: folder of the training patches' masks, in ``source`` or a whole path.
        mpp: um/px of all patches; None for those of BCSS's regions, of which they are parts.

    Raises:
        InputError: where a folder or a mask is missing, or a name is not the dataset's.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the BCSS-WSSS folder that holds training/, val/ and test/.")
    # the archive and its readme name it differently
    training = source / "train" if (source / "train").is_dir() else source / "training"
    folders = {
        "train": (training, source / pseudo_labels, "name the folder of pseudo-labels with --pseudo_labels"),
        "val": (source / "val" / "img", source / "val" / "mask", "SOURCE must hold it"),
        "test": (source / "test" / "img", source / "test" / "mask", "SOURCE must hold it"),
    }
    found = []
    for split, (images, masks, remedy) in folders.items():
        if not images.is_dir():
            raise InputError(f"{images}: no such folder; SOURCE must hold training/, val/img/ and test/img/.")
        patches = regions_of(images, masks, remedy, partial(_parts, split, mpp), prefix=f"{split}_")
        found += [(split, patch) for patch in patches]
    return found


def _parts(split: str, mpp: float | None, image: Path) -> dict[str, Any]:
    match = _PATCH.match(image.stem)
    if match is None or (match["label"] is None) == (split == "train"):
        form = "REGION+0[1101]" if split == "train" else "REGION+0"
        raise InputError(f"{image}: not a BCSS-WSSS name ({form}.png, REGION being a name of BCSS).")
    label = match["label"]
    return name_parts(image.with_name(f"{match['region']}.png"), mpp) | {
        "x0": None,
        "y0": None,
        "image_label": None if label is None else tuple(c for c, there in zip(LABEL_CODES, label) if there == "1"),
    }
