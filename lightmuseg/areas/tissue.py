"""Where tissue lies on a slide, from its thumbnail."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.morphology import disk, remove_small_objects

from lightmuseg.wsi.low_power import LowPower, thumbnail
from lightmuseg.wsi.readers import SlideReader

from .area import TissueMask

# Of the picture in which tissue is looked for: um/px, and pixels of its longer side, at most, with which it takes no
# more memory than all that follows; slides of more than 29 mm get a coarser one.
THUMBNAIL_MPP, THUMBNAIL_SIDE = 8.0, 3600
# Magenta above the glass's, as log10 of a ratio. Smoothed glass strays by 0.003; tissue has 0.05 to 0.3, bleached to
# three quarters white still 0.02. A fixed threshold, because a slide may be all tissue or all glass.
THRESHOLD = 0.012
# Added to grey values before the ratio, so that the noise of black borders and ink stays small.
DARK = 16.0
# Tissue is more magenta than this share of its density in green; dust and black ink of a warm tone are not.
LEAST_SHARE = 0.04
# Glass is bright, nearly grey (largest - smallest channel), no more magenta than this, and as smooth as its noise;
GLASS_BRIGHTNESS, GLASS_COLOUR, GLASS_MAGENTA, GLASS_ROUGHNESS = 180, 40, 0.012, 0.003
# and nothing is brighter but for uneven light: so many grey values, of the 95th percentile.
GLASS_UNEVENNESS = 8
# Where all channels are above, nothing was scanned and the scanner's software filled in white.
FILL = 253
# Less of a slide than this tells nothing of its glass, and that is taken for white.
GLASS_SHARE = 0.03
# Rows and columns of a thumbnail, at most, from which the glass's colour is taken.
SAMPLES = 1000
# Red and violet ink, which is magenta too, by hue: less magenta (min(R, B) - G) to colour (largest - smallest channel)
# than the second number, where there is more colour than the first. Of tissue at 8 um/px the lower percentile is 0.31
# or more, and colour above 130 is rare.
INKS = (30, 0.13), (110, 0.25)

# Smoothing against noise; more would wipe out the walls of fat cells.
SIGMA_UM = 4.0
# Ink's edge mixes with glass or tissue to hues of tissue, and thumbnails blur it.
INK_MARGIN_UM = 40.0
# A stroke of a pen is larger; smaller spots of such colours are pigment or blood in tissue.
INK_MM2 = 0.04
# Half the width of the gaps that are closed: fat cells are 50 to 100 um wide, with walls too thin for a thumbnail.
CLOSING_UM = 48.0
# What is nowhere wider than twice this is the coloured fringe of dirt or of the coverslip's edge.
FRINGE_UM = 24.0
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


def seen(reader: SlideReader) -> LowPower:
    """The picture of a slide, whose ``mpp`` is known, that tissue is looked for in."""
    return thumbnail(reader, THUMBNAIL_MPP, THUMBNAIL_SIDE)


def tissue_of(reader: SlideReader, picture: LowPower | None = None) -> TissueMask:
    """Tissue of a slide, as :func:`find_tissue` sees it in ``picture``; None for :func:`seen`."""
    picture = picture or seen(reader)
    return find_tissue(picture.pixels, picture.factor, reader.mpp, picture.unread)


def find_tissue(thumbnail: np.ndarray, step0: float, mpp0: float, unread: np.ndarray | None = None) -> TissueMask:
    """Tissue stained with haematoxylin and eosin; other stains, such as brown DAB alone, are not found.

    Both stains let more red and more blue through than green. Glass, dust, coverslip edges, black borders and ink in
    green, cyan, blue and black do not [1]_. So tissue is told by how magenta it is above the slide's glass, as
    log10(min(R, B) / G): a ratio holds for pale and for dense tissue. The threshold is fixed; one that is chosen by the
    histogram, as Otsu's is, halves a slide that is all tissue or all glass too. Red and violet ink are told by their
    hue. Then gaps are closed, fringes and specks removed, holes filled and a margin added. All of it leans towards
    too much: what is not tissue costs time, what is missed is never looked at.

    Args:
        thumbnail: uint8 [h, w, 3] of the whole slide, about 8 um/px (4 to 32).
        step0: level-0 pixels to one of its own.
        mpp0: um/px of level 0.
        unread: bool [h, w], where the thumbnail could not be read. It is tissue, so that nothing is missed there.

    Returns:
        On the thumbnail's grid. The same for the same thumbnail.

    References:
        .. [1] Schreiber et al., Rapid artefact removal and H&E-stained tissue segmentation, Scientific Reports 14:309,
           2024, who take the product of R - G and B - G, and Otsu's threshold.
    """
    um = step0 * mpp0
    if unread is None:
        unread = np.zeros(thumbnail.shape[:2], bool)
    white = glass_colour(thumbnail, unread)
    magenta, ink = magenta_and_ink(thumbnail, white)
    _smooth(magenta, SIGMA_UM / um, unread)
    ink = grown(_without_specks(ink, INK_MM2, um), INK_MARGIN_UM, um)
    tissue = ((magenta > THRESHOLD) & ~ink) | unread
    tissue = _shrunk(grown(tissue, CLOSING_UM, um), CLOSING_UM, um)
    tissue = ndimage.binary_propagation(_shrunk(tissue, FRINGE_UM, um), mask=tissue)
    tissue = _without_specks(tissue, SPECK_MM2, um)
    tissue = _without_holes(tissue, HOLE_MM2, um)
    # what is unread needs no margin: it has one where tissue is seen beside it
    return TissueMask((grown(tissue & ~unread, MARGIN_UM, um) & ~ink) | unread, step0)


def _smooth(magenta: np.ndarray, sigma: float, unread: np.ndarray) -> None:
    """Smooth in place; what is unread has no weight."""
    if not unread.any():
        ndimage.gaussian_filter(magenta, sigma, output=magenta)
        return
    magenta[unread] = 0
    weight = ndimage.gaussian_filter((~unread).astype(np.float32), sigma)
    ndimage.gaussian_filter(magenta, sigma, output=magenta)
    np.divide(magenta, weight, out=magenta, where=~unread)


def magenta_and_ink(thumbnail: np.ndarray, white: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel: magenta above ``white``, float32 [h, w]; whether it is red or violet ink, bool [h, w]."""
    magenta, ink = np.empty(thumbnail.shape[:2], np.float32), np.empty(thumbnail.shape[:2], bool)
    for start in range(0, len(thumbnail), BAND):
        band = slice(start, start + BAND)
        red, green, blue = np.moveaxis(thumbnail[band] * (255 / white).astype(np.float32), 2, 0)
        red_or_blue = np.minimum(red, blue)
        magenta[band] = np.log10((red_or_blue + DARK) / (green + DARK))
        magenta[band] -= LEAST_SHARE * np.log10((255 + DARK) / (green + DARK))
        colour = np.maximum(np.maximum(red, blue), green) - np.minimum(red_or_blue, green)
        ink[band] = np.any([(colour > least) & (red_or_blue - green < share * colour) for least, share in INKS], axis=0)
    return magenta, ink


def glass_colour(thumbnail: np.ndarray, unread: np.ndarray) -> np.ndarray:
    """Colour of the slide's glass, float64 [3]; white where it shows none."""
    thumbnail, unread = (
        array[:: 1 + len(array) // SAMPLES, :: 1 + array.shape[1] // SAMPLES] for array in (thumbnail, unread)
    )
    magenta, _ = magenta_and_ink(thumbnail, np.full(3, 255.0))
    mean = ndimage.uniform_filter(magenta, 5)
    smooth = ndimage.uniform_filter(magenta**2, 5) - mean**2 < GLASS_ROUGHNESS**2
    least, most = thumbnail.min(axis=2), thumbnail.max(axis=2)
    scanned = (least < FILL) & ~unread
    glass = smooth & (mean < GLASS_MAGENTA) & scanned & (least >= GLASS_BRIGHTNESS) & (most - least <= GLASS_COLOUR)
    if glass.any():
        glass &= least >= np.percentile(least[scanned], 95) - GLASS_UNEVENNESS
    if np.count_nonzero(glass) < max(1, GLASS_SHARE * np.count_nonzero(~unread)):
        return np.full(3, 255.0)
    return np.array([np.bincount(thumbnail[..., channel][glass]).argmax() for channel in range(3)], float)


def _without_specks(mask: np.ndarray, mm2: float, um: float) -> np.ndarray:
    return remove_small_objects(mask, round(min(mm2 * 1e6 / um**2, SPECK_SHARE * mask.size)))


def _without_holes(mask: np.ndarray, mm2: float, um: float) -> np.ndarray:
    """What reaches the slide's edge is no hole."""
    holes = ndimage.binary_fill_holes(mask) & ~mask
    return mask | (holes & ~remove_small_objects(holes, round(mm2 * 1e6 / um**2)))


def grown(mask: np.ndarray, by_um: float, um: float) -> np.ndarray:
    """By a disc; beyond the thumbnail's edge there is nothing to grow from."""
    radius = round(by_um / um)
    for part, times in disk(radius, decomposition="sequence") if radius else ():
        mask = ndimage.binary_dilation(mask, part, iterations=times)
    return mask


def _shrunk(mask: np.ndarray, by_um: float, um: float) -> np.ndarray:
    """By a disc; what lies beyond the thumbnail's edge takes nothing away."""
    return ~grown(~mask, by_um, um)
