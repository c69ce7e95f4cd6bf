"""Where tissue lies on a slide, from its thumbnail."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from .area import TissueMask

# Magenta is log10 of a ratio. Smoothed glass strays by 0.003; tissue has 0.05 to 0.3, as pale as three quarters white
# still 0.02. Otsu's threshold is kept within these, for slides that are all glass or all tissue.
THRESHOLDS = 0.010, 0.030
# Added to grey values before the ratio, so that the noise of black borders and ink stays small.
DARK = 16.0
# Glass is bright and as smooth as its noise, and up to so magenta; beyond, it is pale tissue.
GLASS_BRIGHTNESS, GLASS_ROUGHNESS, GLASS_MAGENTA = 180, 0.004, 0.018
# Where all channels are above, nothing was scanned and the scanner's software filled in white.
FILL = 253
# Less of a slide than this tells nothing of its glass.
GLASS_SHARE = 0.01
# Ink is more colourful (largest - smallest channel) than tissue of its hue. Red: of that no more blue above green
# than this share; blood has more. Blue and violet: no more red above green than this share.
INK_COLOUR, INK_SHARE = 100, 0.22

# Smoothing: less than a cell, more than noise.
SIGMA_UM = 8.0
# Ink's edge mixes with glass or tissue to hues of tissue, and thumbnails blur it.
INK_MARGIN_UM = 40.0
# A stroke of a pen is larger; smaller spots of such colours are pigment or blood in tissue.
INK_MM2 = 0.04
# Half the width of the gaps that are closed: fat cells are 50 to 100 um wide, with walls too thin for a thumbnail.
CLOSING_UM = 48.0
# Half the width of what is taken for the coloured fringe of dirt or of the coverslip; strands of tissue are wider.
OPENING_UM = 8.0
# Less than one network tile of 0.128 mm: squames and floaters.
SPECK_MM2 = 0.016
# What covers more than this of a slide, which may be a small one, is no speck.
SPECK_SHARE = 0.05
# Lumens, vessels and lobules of fat; larger holes are glass.
HOLE_MM2 = 0.15
# Tissue fades at its border, and smoothing and opening take from it.
MARGIN_UM = 32.0
# Rows of a thumbnail that are held as floats at once.
BAND = 512


def find_tissue(thumbnail: np.ndarray, step0: float, mpp0: float) -> TissueMask:
    """Tissue stained with haematoxylin and eosin; other stains, such as brown DAB alone, are not found.

    Both stains let more red and more blue through than green. Glass, dust, coverslip edges, black borders and ink in
    green, cyan, blue and black do not [1]_. So tissue is told by how magenta it is above the slide's glass, as
    log10(min(R, B) / G): a ratio holds for pale and for dense tissue. Otsu's threshold [2]_ is kept within a range,
    because it halves a slide that is all tissue or all glass too. Red and violet ink are told by colours that are too
    strong for tissue. Then fringes and specks are removed, gaps closed, holes filled and a margin added.

    Args:
        thumbnail: uint8 [h, w, 3] of the whole slide, about 8 um/px (4 to 32).
        step0: level-0 pixels to one of its own.
        mpp0: um/px of level 0.

    References:
        .. [1] Schreiber et al., Rapid artefact removal and H&E-stained tissue segmentation, Scientific Reports 14:309,
           2024, who take the product of R - G and B - G.
        .. [2] Otsu, A threshold selection method from gray-level histograms, IEEE SMC 9(1):62-66, 1979.
    """
    um = step0 * mpp0
    magenta, ink, bright = _measured(thumbnail)
    magenta -= _magenta_of_glass(magenta, bright)
    ndimage.gaussian_filter(magenta, SIGMA_UM / um, output=magenta)
    threshold = float(np.clip(threshold_otsu(magenta), *THRESHOLDS)) if np.ptp(magenta) > 0 else THRESHOLDS[1]
    ink = _grown(_without_specks(ink, INK_MM2, um), INK_MARGIN_UM, um)
    tissue = (magenta > threshold) & ~ink
    tissue = _grown(_shrunk(tissue, OPENING_UM, um), OPENING_UM, um)
    tissue = _without_specks(tissue, SPECK_MM2, um)
    tissue = _shrunk(_grown(tissue, CLOSING_UM, um), CLOSING_UM, um)
    tissue = remove_small_holes(tissue, round(HOLE_MM2 * 1e6 / um**2))
    return TissueMask(_grown(tissue, MARGIN_UM, um) & ~ink, step0)


def _measured(thumbnail: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Magenta float32 [h, w]; bool [h, w], whether a pixel is red or violet ink; whether it is as bright as glass."""
    magenta = np.empty(thumbnail.shape[:2], np.float32)
    ink, bright = np.empty(magenta.shape, bool), np.empty(magenta.shape, bool)
    for start in range(0, len(thumbnail), BAND):
        band = slice(start, start + BAND)
        red, green, blue = np.moveaxis(thumbnail[band].astype(np.float32), 2, 0)
        magenta[band] = np.log10((np.minimum(red, blue) + DARK) / (green + DARK))
        least, most = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
        ink[band] = (most - least > INK_COLOUR) & (np.minimum(red, blue) - green < INK_SHARE * (most - least))
        bright[band] = (least >= GLASS_BRIGHTNESS) & (least < FILL)
    return magenta, ink, bright


def _magenta_of_glass(magenta: np.ndarray, bright: np.ndarray) -> float:
    """The commonest value among bright pixels with smooth surroundings; 0 where a slide shows no glass."""
    mean = ndimage.uniform_filter(magenta, 5)
    variance = ndimage.uniform_filter(magenta**2, 5) - mean**2
    glass = magenta[bright & (variance < GLASS_ROUGHNESS**2) & (np.abs(mean) < GLASS_MAGENTA)]
    if len(glass) < GLASS_SHARE * magenta.size:
        return 0.0
    counts, edges = np.histogram(glass, bins=41, range=(-GLASS_MAGENTA, GLASS_MAGENTA))
    # glass that is green or blue is no less far from tissue than white glass
    return max(0.0, float(edges[counts.argmax() : counts.argmax() + 2].mean()))


def _without_specks(mask: np.ndarray, mm2: float, um: float) -> np.ndarray:
    return remove_small_objects(mask, round(min(mm2 * 1e6 / um**2, SPECK_SHARE * mask.size)))


def _grown(mask: np.ndarray, by_um: float, um: float) -> np.ndarray:
    if not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask) * um <= by_um


def _shrunk(mask: np.ndarray, by_um: float, um: float) -> np.ndarray:
    """As seen from inside: what lies beyond the thumbnail's edge takes nothing away."""
    return ~_grown(~mask, by_um, um)
