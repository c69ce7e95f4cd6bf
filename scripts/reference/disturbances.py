"""What may differ between laboratories and scanners, put onto pictures at a known strength."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb_from_hed

# Of each kind three strengths; SIGNED ones go both ways, written so.
STRENGTHS = {
    "stain": (0.1, 0.2, 0.3), "blur": (0.5, 1.0, 2.0), "jpeg": (70, 40, 20), "scale": (1.08, 1.16, 1.25),
    "brightness": (0.1, 0.2, 0.3),
}  # fmt: skip
SIGNED = {"stain": "±", "scale": "* or / ", "brightness": "±"}
UNITS = {
    "stain": "haematoxylin times 1 + s, eosin times 1 - s", "blur": "sigma, um", "jpeg": "quality",
    "scale": "stated um/px over the true one", "brightness": "intensities times 1 + s",
}  # fmt: skip


def strengths(kind: str) -> list[float]:
    """All strengths of a kind, both ways where it goes both ways.

    >>> strengths("scale"), strengths("blur")
    ([0.8, 0.862, 0.926, 1.08, 1.16, 1.25], [0.5, 1.0, 2.0])
    """
    given = STRENGTHS[kind]
    if kind not in SIGNED:
        return list(given)
    return sorted([*given, *(opposite(kind, strength) for strength in given)])


def opposite(kind: str, strength: float) -> float:
    """The same strength the other way."""
    return round(1 / strength, 3) if kind == "scale" else -strength


def disturbed(pixels: np.ndarray, mpp: float, kind: str, strength: float) -> tuple[np.ndarray, float]:
    """RGB uint8 [H, W, 3] and the um/px that it is said to have, of a picture of ``mpp``."""
    if kind == "scale":
        return pixels, mpp * strength
    if kind == "stain":
        return stain_shifted(pixels, strength), mpp
    if kind == "blur":
        sigma = strength / mpp
        return ndimage.gaussian_filter(pixels, (sigma, sigma, 0), output=np.uint8), mpp
    if kind == "jpeg":
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(strength))
        return np.asarray(Image.open(file)), mpp
    if kind == "brightness":
        return (pixels * np.float32(1 + strength)).round().clip(0, 255).astype(np.uint8), mpp
    raise ValueError(f"{kind} is no disturbance")


def stain_shifted(pixels: np.ndarray, strength: float) -> np.ndarray:
    """RGB with haematoxylin's optical density times 1 + strength and eosin's times 1 - strength.

    References:
        Ruifrok & Johnston, Quantification of histochemical staining by color deconvolution, Analytical and Quantitative
        Cytology and Histology 23:291, 2001, whose third stain is DAB: here what the two leave.
    """
    shift = hed_from_rgb @ np.diag([1 + strength, 1 - strength, 1]) @ rgb_from_hed
    # 256 values of a byte each have one density
    density = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)[pixels]
    return (256 * 10 ** -(density @ shift.astype(np.float32)) - 1).round().clip(0, 255).astype(np.uint8)
