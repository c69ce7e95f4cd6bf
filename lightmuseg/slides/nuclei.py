"""Whether the nuclei of a slide are as large as its um/px says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from skimage.color import hed_from_rgb
from skimage.filters import threshold_otsu

from lightmuseg.wsi.model_view import ModelView, whole

# Fields that are looked at: how many, pixels of a side, of the least side, and um/px; coarser slides are taken as they
# are. 24 of them take about a second.
FIELDS, FIELD_SIDE, LEAST_SIDE, FIELD_MPP = 24, 256, 64, 0.25
# Against the noise of single pixels.
SIGMA = 0.5
# Optical density (decimal) above which there is tissue, and the share of a field that has to be tissue. Black ink and
# borders are no tissue.
LEAST_DENSITY, LEAST_TISSUE, BLACK = 0.08, 0.3, 30
# Of green to red and blue, in density: in haematoxylin and eosin 1.4 or more, in brown and in grey 1.1 or less.
LEAST_MAGENTA = 1.2
# Haematoxylin of what is taken for nuclei above the rest, in skimage's units of density; acellular tissue, which has no
# two kinds of pixels, stays below.
LEAST_CONTRAST = 0.12
# Radii of discs, in pixels. Nuclei have one size within a factor of two or three; what has many sizes is something
# else, as glands are on an overview: that is so where the upper quartile is so many times the lower one.
RADII = np.geomspace(1, 32, 16)
MOST_SPREAD = 3.2
# Nuclei, at least, that tell a size.
LEAST_NUCLEI = 100
# Thickness in um, and what a nucleus cannot be: see nuclei_um.
USUAL_UM, LEAST_UM, MOST_UM = 5.4, 2.3, 12.0


def nuclei_um(fields: Sequence[np.ndarray], mpp: float) -> float | None:
    """The thickness of nuclei: three quarters of their area lie in parts that are thinner.

    Haematoxylin is separated from eosin [1]_, and nuclei from the rest by Otsu's threshold in each field, neither of
    which knows of any scale. The areas left by openings with discs, one larger than the other, are the distribution of
    thickness [2]_; a quantile by area is hardly moved by specks, and by clumps less than a diameter is.

    Measured on the 67 images at hand (a slow test does it again), 8 regions and slides and 59 single fields: at
    the scale that is known of them, cancers of breast, ovary, and head and neck, and skin have 3.0 to 9.6 um, fields of
    lymph nodes (CAMELYON, whose scale is known roughly) 2.5 to 3.2. So below 2.3 or above 12 um a scale is
    contradicted. Cells differ among themselves by more than two, so a scale that is wrong by two is told only where
    nuclei are very small or very large:

    ====================  =====  =====  =====  =====  =====  =====  =====
    said, times the true    1/4    1/3    1/2      1      2      3      4
    ====================  =====  =====  =====  =====  =====  =====  =====
    regions, of 8             7      7      2      0      1      6      8
    fields, of 59            51     46     40      0     13     18     32
    ====================  =====  =====  =====  =====  =====  =====  =====

    Args:
        fields: uint8 [h, w, 3], of tissue.
        mpp: um/px of the fields as the slide says.

    Returns:
        um; None where there are too few nuclei, or nothing that looks like them.

    References:
        .. [1] Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, Analytical and
           Quantitative Cytology and Histology 23, 2001.
        .. [2] Matheron, Random Sets and Integral Geometry, 1975: granulometry.
    """
    # pixels of nuclei, and those that are left by each disc
    left = np.zeros(1 + len(RADII))
    for field in fields:
        nuclei = _nuclei(field)
        if nuclei is not None:
            left += [np.count_nonzero(nuclei), *_left_by_discs(nuclei)]
    if not left[0]:
        return None
    lower, middle, upper = (_diameter(left / left[0], share) for share in (0.75, 0.5, 0.25))
    if left[0] < LEAST_NUCLEI * np.pi / 4 * middle**2 or upper > MOST_SPREAD * lower:
        return None
    return upper * mpp


def fields_at(view: ModelView, corners_m: Sequence[tuple[int, int]], tile_size: int) -> tuple[list[np.ndarray], float]:
    """Fields that can be read, at most 24, evenly from the tiles at ``corners_m`` (xm, ym), and their um/px.

    Args:
        view: the slide at the model's um/px.
        corners_m: of tiles of tissue.
        tile_size: side of a tile in model pixels.
    """
    mpp = max(FIELD_MPP, view.reader.mpp)
    fine = ModelView(view.reader, mpp)
    times = view.scale / fine.scale
    offsets = range(0, max(1, int(tile_size * times) - FIELD_SIDE + 1), FIELD_SIDE)
    corners = [(int(xm * times) + x, int(ym * times) + y) for xm, ym in corners_m for y in offsets for x in offsets]
    corners = corners[:: -(-len(corners) // FIELDS) or 1]
    return list(_inside(fine, corners)), mpp


def _inside(view: ModelView, corners: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    for (x, y), box in zip(corners, view.read_batch(corners, FIELD_SIDE)):
        field = whole(box)
        if field is not None:
            field = field[max(0, -y) : view.height - y, max(0, -x) : view.width - x]
            if min(field.shape[:2]) >= LEAST_SIDE:
                yield field


def _nuclei(field: np.ndarray) -> np.ndarray | None:
    """bool [h, w]; None of a field that has none."""
    density = -np.log10(np.maximum(field, 1) / np.float32(255))
    tissue = (density.mean(axis=2) > LEAST_DENSITY) & (field.max(axis=2) > BLACK)
    if np.count_nonzero(tissue) < LEAST_TISSUE * tissue.size:
        return None
    red, green, blue = density[tissue].mean(axis=0)
    if green < LEAST_MAGENTA * (red + blue) / 2:
        return None
    haematoxylin = ndimage.gaussian_filter(density @ hed_from_rgb[:, 0].astype(np.float32), SIGMA)
    nuclei = tissue & (haematoxylin > threshold_otsu(haematoxylin[tissue]))
    rest = tissue & ~nuclei
    if not (nuclei.any() and rest.any()):
        return None
    return nuclei if haematoxylin[nuclei].mean() - haematoxylin[rest].mean() >= LEAST_CONTRAST else None


def _left_by_discs(mask: np.ndarray) -> list[int]:
    """Pixels that are left by an opening with each of the discs; at the edge the mask goes on."""
    framed = np.pad(mask, 1, mode="edge")
    depth = ndimage.distance_transform_edt(framed)
    counts = []
    for radius in RADII:
        core = depth > radius
        opened = core.any() and (ndimage.distance_transform_edt(~core) <= radius) & framed
        counts.append(np.count_nonzero(opened[1:-1, 1:-1]) if core.any() else 0)
    return counts


def _diameter(left: np.ndarray, share: float) -> float:
    """Of the disc, in pixels, that leaves this share."""
    return 2 * float(np.exp(np.interp(-share, -left, np.log([0.5, *RADII]))))
