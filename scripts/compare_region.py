"""Score a class map against a mask, and show both: python scripts/compare_region.py IMAGE CLASSES MASK PICTURE.

CLASSES is the classes.tif of ``lightmuseg segment`` at the image's um/px, which is 0.30 of BCSS's named 0.2500. MASK is
0 for other tissue and above for tumor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lightmuseg.pictures import compare as side_by_side
from lightmuseg.wsi.images import read_codes, read_rgb

SIDE = 560


def compare(image: Path, classes: Path, mask: Path, picture: Path) -> None:
    """Print the Dice of the whole region and save image, truth and prediction side by side."""
    pixels, predicted, truth = read_rgb(image), read_codes(classes) > 0, read_codes(mask) > 0
    both = np.logical_and(predicted, truth).sum()
    print(
        f"Dice {2 * both / (predicted.sum() + truth.sum()):.4f}, "
        f"IoU {both / np.logical_or(predicted, truth).sum():.4f}, sensitivity {both / truth.sum():.4f}, "
        f"precision {both / max(predicted.sum(), 1):.4f}; "
        f"with everything called tumor Dice {2 * truth.mean() / (1 + truth.mean()):.4f}"
    )
    maps = [classes.astype(np.uint8) for classes in (truth, predicted)]
    side_by_side(pixels, *maps, ["tumor"], SIDE).save(picture)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    compare(*(Path(argument) for argument in sys.argv[1:]))
