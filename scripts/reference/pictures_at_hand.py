"""The annotated pictures that models are judged by, and what their annotation says in a model's classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from lightmuseg.areas.area import TissueMask
from lightmuseg.classes import IGNORED
from lightmuseg.data.bcss import CODES, MASK_CODINGS
from lightmuseg.data.transforms import CodesToClassesd
from lightmuseg.errors import InputError
from lightmuseg.models.card import ModelCard
from lightmuseg.wsi.images import read_codes, read_rgb
from lightmuseg.wsi.low_power import thumbnail
from lightmuseg.wsi.readers import SlideReader

TUMOR = CODES["tumor"]
# 254 says "not tumor" and nothing else
AA10_CODING = {1: TUMOR, 254: CODES["other"]}
# by patient: picture, mask, um/px, coding of the mask, and whether it tells tumor from the rest alone
_KNOWN = {
    "TCGA-A2-A0D2": ("bcss/rgbs/TCGA-A2-A0D2*.png", "bcss/masks/TCGA-A2-A0D2*.png", 0.3, MASK_CODINGS["bcss"], False),
    "TCGA-A2-A1G6": (
        "bcss/rgbs/TCGA-A2-A1G6*.png", "bcss/tumor_masks/TCGA-A2-A1G6*.png", 0.3, MASK_CODINGS["tumor"], True,
    ),
    "TCGA-S3-AA15": (
        "bcss_05um/AA15_mosaic_rgb.png", "bcss_05um/AA15_mosaic_mask.png", 0.5, MASK_CODINGS["bcss"], False,
    ),
    "TCGA-S3-AA10": ("bcss_05um/AA10_mosaic_rgb.png", "bcss_05um/AA10_mosaic_mask.png", 0.5, AA10_CODING, True),
}  # fmt: skip
# slides with glass that was scanned, and um/px of one that does not say it; None for what it says
GLASS_SLIDES = {"slides/CMU-1-Small-Region.svs": None, "slides/TCGA-CR-7395-01A-01-TS1.svs": 0.25}
# The look for glass: um/px; stained is what has more optical density than this above the slide's white in any channel;
# glass lies this far from anything stained.
GLASS_MPP, STAINED, GLASS_DISTANCE_UM = 4.0, 0.06, 24.0


@dataclass(frozen=True)
class Annotated:
    """A patient's annotated picture.

    Attributes:
        patient: as TCGA names it.
        image, mask: files.
        mpp: true um/px of both.
        coding: BCSS code of each value of the mask; other values say nothing.
        tumor_alone: whether what is not tumor is of unknown class.
    """

    patient: str
    image: Path
    mask: Path
    mpp: float
    coding: dict[int, int]
    tumor_alone: bool

    def pixels(self) -> np.ndarray:
        """RGB uint8 [H, W, 3]."""
        return read_rgb(self.image)

    def labels(self, card: ModelCard) -> np.ndarray:
        """Class indices uint8 [H, W] by the card's codes; 255 where nothing counts."""
        table = np.full(256, IGNORED, np.uint8)
        for value, code in self.coding.items():
            table[value] = code
        codes = table[read_codes(self.mask)]
        lookup = CodesToClassesd("mask", card.classes, card.ignored_codes, card.merged_codes).lookup
        return np.where(codes == IGNORED, IGNORED, lookup[codes]).astype(np.uint8)

    def scored(self, card: ModelCard) -> dict[str, int]:
        """Name and index of the classes that the mask can judge."""
        classes = enumerate(card.classes.items(), start=1)
        return {name: index for index, (name, codes) in classes if not self.tumor_alone or TUMOR in codes}


def annotated(data: str | Path, patient: str) -> Annotated:
    """The picture of a patient in the folder of data.

    Raises:
        InputError: for a patient who is not known, or whose files are not there.
    """
    if patient not in _KNOWN:
        raise InputError(f"{patient}: no such patient; one of {', '.join(_KNOWN)}.")
    files = []
    for pattern in _KNOWN[patient][:2]:
        found = sorted(Path(data).glob(pattern))
        if len(found) != 1:
            raise InputError(f"{Path(data) / pattern}: {len(found)} files; one is needed to judge {patient}.")
        files.append(found[0])
    return Annotated(patient, *files, *_KNOWN[patient][2:])


def tumor_of(card: ModelCard) -> tuple[str, int]:
    """Name and index of the class of tumor.

    Raises:
        InputError: for a model that has none.
    """
    for index, (name, codes) in enumerate(card.classes.items(), start=1):
        if TUMOR in codes:
            return name, index
    raise InputError(f"the model's classes {', '.join(card.classes)} hold no tumor (BCSS code {TUMOR}).")


def glass_of(reader: SlideReader) -> TissueMask:
    """Glass without doubt, as an area, found without the tissue mask: 24 um or more from anything stained.

    Args:
        reader: the slide, whose um/px is known.
    """
    picture = thumbnail(reader, GLASS_MPP, 10_000)
    um = picture.factor * reader.mpp
    density = -np.log10((picture.pixels.astype(np.float32) + 1) / 256)
    density = ndimage.gaussian_filter(density, (GLASS_MPP / um, GLASS_MPP / um, 0))
    # what the scanner's software filled in is no glass, but as far from tissue
    white = [np.median(channel[channel < STAINED]) if (channel < STAINED).any() else 0 for channel in density.T]
    clear = (density - white).max(axis=2) < STAINED
    far = ndimage.distance_transform_edt(np.pad(clear, 1, constant_values=True))[1:-1, 1:-1] * um
    return TissueMask((far >= GLASS_DISTANCE_UM) & ~picture.unread & (picture.pixels.min(axis=2) < 253), picture.factor)
