"""The BCSS-WSSS dataset: patches of BCSS whose training part has labels of the whole image only."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.wsi.images import IMAGE_SUFFIXES, files_by_stem, read_codes, read_rgb

from .bcss import CODES, MASK_CODINGS, Region, name_parts, to_codes

PATCH_SIZE = 224
# Where the authors' public code puts the pseudo-labels of the network's last layer.
PSEUDO_LABELS = "train_PM/PM_bn7"
# The palette of the dataset's masks, as its readme gives it, in the order of the mask values 0 to 4.
PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (153, 0, 255), (255, 255, 255))
# The classes of the image-level label [abcd], in its order.
LABEL_CODES = tuple(CODES[name] for name in ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris"))

_PATCH = re.compile(r"(?P<region>.+)\+\d+(?:\[(?P<label>[01]{4})\])?$")


def find_patches(source: Path, pseudo_labels: str = PSEUDO_LABELS) -> list[tuple[str, Region]]:
    """The patches of a BCSS-WSSS folder with their published split; each is a region of its own.

    A patch's place in its slide is not known. Its name is that of its file with the split before it, because the
    splits count their patches each from 0.

    Args:
        source: holds ``training`` (or ``train``) with images whose names end in ``+index[abcd]``, and ``val`` and
            ``test`` with the folders ``img`` and ``mask``.
        pseudo_labels: folder of the training patches' masks, in ``source`` or a whole path.

    Raises:
        InputError: where a folder or a mask is missing, or a name is not the dataset's.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the BCSS-WSSS folder that holds training/, val/ and test/.")
    # the archive and its readme name it differently
    training = source / "train" if (source / "train").is_dir() else source / "training"
    folders = {
        "train": (training, source / pseudo_labels),
        "val": (source / "val" / "img", source / "val" / "mask"),
        "test": (source / "test" / "img", source / "test" / "mask"),
    }
    return [(split, patch) for split, (images, masks) in folders.items() for patch in _patches(split, images, masks)]


def _patches(split: str, images: Path, masks: Path) -> list[Region]:
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; SOURCE must hold training/, val/img/ and test/img/.")
    if not masks.is_dir():
        remedy = "name the folder of pseudo-labels with --pseudo_labels" if split == "train" else "SOURCE must hold it"
        raise InputError(f"{masks}: no such folder; {remedy}.")
    image_of_stem = files_by_stem(images, IMAGE_SUFFIXES)
    if not image_of_stem:
        raise InputError(f"{images}: holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    mask_of_stem = files_by_stem(masks, (".png",))
    patches = []
    for stem, image in image_of_stem.items():
        match = _PATCH.match(stem)
        if match is None or (match["label"] is None) == (split == "train"):
            form = "REGION+0[1101]" if split == "train" else "REGION+0"
            raise InputError(f"{image}: not a BCSS-WSSS name ({form}.png, REGION being a name of BCSS).")
        parts = name_parts(image.with_name(f"{match['region']}.png"))
        if stem not in mask_of_stem:
            raise InputError(f"{image}: has no mask in {masks}; add {stem}.png there or take the image away.")
        patches.append(
            Region(
                name=f"{split}_{stem}",
                patient=parts["patient"],
                image=image,
                mask=mask_of_stem[stem],
                x0=None,
                y0=None,
                mpp=parts["mpp"],
                image_label=_label_codes(match["label"]),
            )
        )
    return patches


def _label_codes(label: str | None) -> tuple[int, ...] | None:
    return None if label is None else tuple(code for code, there in zip(LABEL_CODES, label) if there == "1")


def read_labels(path: Path) -> np.ndarray:
    """The BCSS codes, uint8 [H, W], of a mask: of an index or grey image by value, of a colour image by the palette.

    Raises:
        InputError: where it cannot be read whole, or holds a value or colour that is not one of the five.
    """
    if not _is_colour(path):
        return to_codes(read_codes(path), "bcss-wsss", path)
    pixels = read_rgb(path).astype(np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    codes = np.zeros(packed.shape, dtype=np.uint8)
    known = np.zeros(packed.shape, dtype=bool)
    for value, (red, green, blue) in enumerate(PALETTE):
        of_colour = packed == (red << 16 | green << 8 | blue)
        codes[of_colour] = MASK_CODINGS["bcss-wsss"][value]
        known |= of_colour
    if not known.all():
        colour = tuple(int(channel) for channel in pixels[~known][0])
        raise InputError(f"{path}: holds the unknown colour {colour}; known are {', '.join(map(str, PALETTE))}.")
    return codes


def _is_colour(path: Path) -> bool:
    # what cannot be opened is for the reader of masks to say
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except (OSError, SyntaxError, ValueError):
        return False
