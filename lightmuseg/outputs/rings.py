"""The borders of a block's regions as rings of steps along its pixels.

Every border of a pixel is a step, which another follows: around the same pixel, or on along the next one of its region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# The sides of a pixel in the order in which they are walked, its region on the right where y points up.
LEFT, BOTTOM, RIGHT, TOP = range(4)
BEGINS = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], dtype=np.int32)
DIRECTIONS = np.roll(BEGINS, -1, axis=0) - BEGINS


@dataclass(frozen=True)
class Rings:
    """The steps of one pixel along the border of every region, ring after ring, the region on the right.

    A step goes from ``start`` to ``stop``, int [N, 2] as x, y. Ring r has ``lengths[r]`` steps and bounds polygon
    ``owners[r]``, as its shell where it is the first of that polygon.
    """

    start: np.ndarray
    stop: np.ndarray
    lengths: np.ndarray
    owners: np.ndarray


def traced(classes: np.ndarray) -> tuple[Rings, np.ndarray]:
    """The rings around all regions of a block of class indices, uint8 [height, width], and each region's class index.

    Regions are pixels of one class that are connected by edges, in order of their first pixels.
    """
    # a wall of another value, so that no pixel is without neighbours
    padded = np.pad(classes.astype(np.int16), 1, constant_values=-1)
    flat, line = padded.ravel(), padded.shape[1]
    beside, above = np.flatnonzero(flat[1:] != flat[:-1]), np.flatnonzero(flat[line:] != flat[:-line])
    steps = np.concatenate(
        [4 * (beside + 1) + LEFT, 4 * above + BOTTOM, 4 * beside + RIGHT, 4 * (above + line) + TOP]
    )  # fmt: skip
    steps = np.sort(steps[flat[steps // 4] >= 0])
    region, following = _followed(flat, line, steps)
    ring, rank = _walked(following)
    order = np.lexsort([rank, ring, region])
    firsts = np.flatnonzero(np.diff(ring[order], prepend=-1))
    # a region's first step is of its shell
    shells, owners = np.unique(region[order[firsts]], return_inverse=True)
    pixels, sides = np.divmod(steps[order], 4)
    start = np.stack([pixels % line - 1, pixels // line - 1], axis=1).astype(np.int32) + BEGINS[sides]
    rings = Rings(start, start + DIRECTIONS[sides], np.diff(firsts, append=len(order)), owners)
    return rings, flat[steps[shells] // 4].astype(np.intp)


def _followed(flat: np.ndarray, line: int, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each step the first one of its region, and the one that follows on its ring, so that no ring meets itself."""
    jumps = np.array([-1, line, 1, -line])
    pixels, sides = np.divmod(steps, 4)
    turned = (sides + 1) % 4
    ahead = pixels + jumps[turned]
    aslant = ahead + jumps[sides]
    turns, alike = flat[ahead] != flat[pixels], flat[aslant] == flat[pixels]
    across = 4 * aslant + (sides - 1) % 4
    following = np.where(turns, 4 * pixels + turned, np.where(alike, across, 4 * ahead + sides))
    following = np.searchsorted(steps, following)
    # a run of pixels has its ends on one ring of a region or on two
    links = (
        np.concatenate([np.arange(len(steps)), np.flatnonzero(sides == LEFT)]),
        np.concatenate([following, np.flatnonzero(sides == RIGHT)]),
    )
    graph = coo_array((np.ones(len(links[0]), dtype=bool), links), shape=(len(steps),) * 2)
    _, region = connected_components(graph, directed=False)
    region = np.unique(region, return_index=True)[1][region]
    # two pixels of a region that meet at a corner only enclose what is on one side of it: a hole that touches there
    corners = np.flatnonzero(turns & alike)
    across = np.searchsorted(steps, across[corners])
    closed = region[across] == region[corners]
    following[corners[closed]] = across[closed]
    return region, following


def _walked(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least item of the ring that each item is of, and how far it is from there, by leaps that double."""
    items = np.arange(len(following))
    least, leap = np.minimum(items, following), following[following]
    while ((lower := np.minimum(least, least[leap])) != least).any():
        least, leap = lower, leap[leap]
    leap = np.where(following == least, items, following)
    # to the last one, from which none goes on
    distance = (leap != items).astype(np.intp)
    while (distance[leap] > 0).any():
        distance, leap = distance + distance[leap], leap[leap]
    return least, distance[least] - distance
