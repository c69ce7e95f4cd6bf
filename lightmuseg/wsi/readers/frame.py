"""The part of a scanner's coordinate system that was scanned, which viewers show as the slide.

MRXS, SCN, BIF and CZI have a level 0 as large as the glass, or larger, and say in ``openslide.bounds-*`` where in it
the scanned fields lie. QuPath shows this box alone, and its coordinates begin in the box's corner; so do ours.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from .reader import Frame

logger = logging.getLogger(__name__)

NAMES = ("x", "y", "width", "height")


def frame_of(path: Path, properties: Mapping[str, str], size: tuple[int, int]) -> Frame | None:
    """The box that a slide's properties name, cut where it reaches over the file's level 0.

    Args:
        path: of the slide, for messages.
        properties: OpenSlide's.
        size: width and height of the file's own level 0.

    Returns:
        None where all of level 0 is the slide: where they name no box, or, with a warning, one that cannot be.
    """
    said = [properties.get(f"openslide.bounds-{name}") for name in NAMES]
    if said == [None] * 4:
        return None
    text = ", ".join(f"{name} {value}" for name, value in zip(NAMES, said))
    if all(re.fullmatch(r"-?\d{1,15}", value or "") for value in said):
        x0, y0, width, height = (int(value) for value in said)
        if 0 <= x0 < size[0] and 0 <= y0 < size[1] and min(width, height) > 0:
            frame = Frame(x0, y0, min(width, size[0] - x0), min(height, size[1] - y0))
            if (frame.width, frame.height) != (width, height):
                logger.warning(f"{path}: its bounds ({text}) reach over its {size[0]} x {size[1]} pixels and are cut.")
            return frame if frame != Frame(0, 0, *size) else None
    logger.warning(
        f"{path}: its bounds ({text}) are no box in its {size[0]} x {size[1]} pixels; all of it is taken, and a viewer "
        "may count from another corner."
    )
    return None
