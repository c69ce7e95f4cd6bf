"""What comes of a slide that is opened and read, beside what came of it when it was whole, for the fuzz of slides."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightmuseg.errors import InputError
from lightmuseg.wsi.readers import UnreadablePixels, open_slide

BOX = 128
MPP = 0.25
# What is one colour in a block of so many pixels, and was not, is no damage that could be taken for tissue.
BLOCK = 16
BLACK, WHITE = 8, 247
# Glass, whose mean is above, is glass still where a damaged JPEG shows it brighter.
GLASS = 215
SAME, REFUSED, UNREAD, SAID, DIFFERS, FAULT = (
    "same pixels", "refused", "named unread", "said", "differs unsaid", "fault",
)  # fmt: skip


@dataclass
class Picture:
    """A slide as it is read: um/px, and boxes uint8 [BOX, BOX, 3] of each level by (width, height); None of unread."""

    mpp: float
    levels: dict[tuple[int, int], dict[tuple[int, int], np.ndarray | None]] = field(default_factory=dict)


def read(path: Path) -> Picture:
    """The whole slide."""
    with open_slide(path, default_mpp=MPP) as reader:
        picture = Picture(reader.mpp)
        for index, level in enumerate(reader.levels):
            corners = [(x, y) for y in range(0, level.height, BOX) for x in range(0, level.width, BOX)]
            boxes = reader.read_batch(index, corners, BOX, BOX)
            picture.levels[level.width, level.height] = {
                corner: None if isinstance(box, UnreadablePixels) else np.array(box)
                for corner, box in zip(corners, boxes)
            }
    return picture


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def read_whole(path: Path) -> Picture:
    """A slide that nothing was done to.

    Raises:
        InputError: where any of it cannot be read.
    """
    picture = read(path)
    unread = sum(box is None for boxes in picture.levels.values() for box in boxes.values())
    if unread:
        raise InputError(f"{path}: {unread} boxes of the undamaged slide cannot be read; correct slide_formats.py.")
    return picture


def outcome(path: Path, whole: Picture) -> tuple[str, str]:
    """How a damaged slide ends, and what is to be said of it."""
    said = _Said()
    logger = logging.getLogger("lightmuseg")
    logger.addHandler(said)
    try:
        damaged = read(path)
    except InputError as error:
        return (REFUSED, str(error)) if "\n" not in str(error) else (FAULT, f"more than a line: {error}")
    except Exception:
        return FAULT, traceback.format_exc(limit=-3)
    finally:
        logger.removeHandler(said)
    differences = _differences(damaged, whole)
    if differences and said.lines:
        return SAID, said.lines[0]
    if differences:
        return DIFFERS, ", ".join(sorted(differences))
    unread = sum(box is None for boxes in damaged.levels.values() for box in boxes.values())
    return (UNREAD, f"{unread} boxes") if unread else (SAME, "")


def _differences(damaged: Picture, whole: Picture) -> set[str]:
    """In which ways the pixels are others than they were."""
    found = set()
    if abs(damaged.mpp - whole.mpp) > 0.01 * whole.mpp:
        found.add("um per pixel")
    first = next(iter(whole.levels))
    if next(iter(damaged.levels)) != first:
        found.add("size")
    for size, boxes in damaged.levels.items():
        if size not in whole.levels:
            found.add("level")
            continue
        for corner, box in boxes.items():
            if box is not None and not np.array_equal(box, whole.levels[size][corner]):
                found.add(_looks(box, corner, whole.levels[size]))
    return found


def _looks(box: np.ndarray, corner: tuple[int, int], whole: dict[tuple[int, int], np.ndarray | None]) -> str:
    for other, pixels in whole.items():
        if other != corner and np.array_equal(box, pixels):
            return "another tile's"
    now, before = _blocks(box), _blocks(whole[corner])
    plain = (np.ptp(now, axis=1).max(axis=-1) == 0) & (np.ptp(before, axis=1).max(axis=-1) > 0)
    darkest, brightest = now.max(axis=(1, 2)), now.min(axis=(1, 2))
    if np.any(plain & (darkest <= BLACK)):
        return "black"
    if np.any(plain & (brightest >= WHITE) & (before.mean(axis=(1, 2)) <= GLASS)):
        return "white"
    return "noise" if np.any(np.abs(now.astype(int) - before).max(axis=(1, 2)) > 32) else "shades"


def _blocks(box: np.ndarray) -> np.ndarray:
    """uint8 [blocks, BLOCK * BLOCK, 3]."""
    n = BOX // BLOCK
    return box.reshape(n, BLOCK, n, BLOCK, 3).swapaxes(1, 2).reshape(n * n, BLOCK * BLOCK, 3)
