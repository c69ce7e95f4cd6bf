"""Class indices of a block of pixels as polygons that share their borders.

The borders between the pixels form a graph: nodes where three or more of the four edges at a pixel's corner are
borders, arcs between them. Each arc is simplified once and stands in the rings on both of its sides, so neighbours have
no gaps or overlaps between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely

from .rings import Rings, traced

# From a pixel's corner to the line through the middles of its two edges.
CUT_CORNER = 0.5**1.5
# Tolerances below it change nothing.
LEAST_TOLERANCE = 0.05
DECIMALS = 2


@dataclass(frozen=True)
class Outlines:
    """The polygons of a block.

    Attributes:
        polygons: shapely polygons [N] in level-0 pixels, one for each region of one class, connected by edges.
        classes: class index of each, int [N].
        top, bottom, left, right: the polygon of each pixel along the block's sides, int [width] or [height].
    """

    polygons: np.ndarray
    classes: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class _Arcs:
    """The rings cut at the nodes: ``first`` is each arc's first step, ``lengths`` how many it has, ``rings`` its ring.

    An arc seen from its two sides is two of these with the same ``edge``; ``forward`` tells them apart. ``samples`` has
    one of them for each edge. ``closed`` arcs are whole rings without a node.
    """

    first: np.ndarray
    lengths: np.ndarray
    rings: np.ndarray
    closed: np.ndarray
    edge: np.ndarray
    forward: np.ndarray
    samples: np.ndarray


def outlines(classes: np.ndarray, tolerance: float, xo: int, yo: int, downsample: float) -> Outlines:
    """The regions of a block of class indices, uint8 [height, width], as polygons.

    The block's own outline stays as it is, with a point wherever a border meets it. With a tolerance of 0.7 or less no
    pixel's middle changes its side.

    Args:
        tolerance: output pixels by which a polygon's border may leave the pixels' borders; 0 keeps the latter.
        xo, yo: the block's corner in output pixels.
        downsample: level-0 pixels to one output pixel.
    """
    rings, values = traced(classes)
    nodes = _nodes(classes)
    sides = _sides(rings, classes.shape)
    rings, arcs = _split(rings, nodes)

    def placed(points: np.ndarray) -> np.ndarray:
        return ((points + np.array([xo, yo])) * downsample).round(DECIMALS)

    return Outlines(_simplified(rings, arcs, tolerance, placed), values, *sides)


def _nodes(classes: np.ndarray) -> np.ndarray:
    """Where borders meet, bool [height + 1, width + 1]; the block's own corners too, as they must stay."""
    padded = np.pad(classes.astype(np.int16), 1, constant_values=-1)
    vertical = padded[:, 1:] != padded[:, :-1]
    horizontal = padded[1:] != padded[:-1]
    edges = vertical[1:].astype(np.uint8) + vertical[:-1] + horizontal[:, 1:] + horizontal[:, :-1]
    nodes = edges >= 3
    nodes[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return nodes


def _sides(rings: Rings, shape: tuple[int, int]) -> list[np.ndarray]:
    owner = np.repeat(rings.owners, rings.lengths)
    twice = rings.start + rings.stop
    sides = []
    for axis, value in ((1, 0), (1, 2 * shape[0]), (0, 0), (0, 2 * shape[1])):
        on_side = np.flatnonzero(twice[:, axis] == value)
        side = np.empty(len(on_side), dtype=np.intp)
        side[twice[on_side, 1 - axis] // 2] = owner[on_side]
        sides.append(side)
    return sides


def _split(rings: Rings, nodes: np.ndarray) -> tuple[Rings, _Arcs]:
    """The rings, turned so that each begins at a node if it has one, and its arcs."""
    starts = _starts(rings.lengths)
    x, y = rings.start.T
    # a ring without nodes begins at its first corner in reading order, from both of its sides
    rank = y * nodes.shape[1] + x + np.where(nodes[y, x], 0, nodes.size)
    lowest = np.flatnonzero(rank == np.repeat(np.minimum.reduceat(rank, starts), rings.lengths))
    ring = np.repeat(np.arange(len(starts)), rings.lengths)
    lowest = lowest[np.unique(ring[lowest], return_index=True)[1]]
    turned = np.repeat(starts, rings.lengths) + (
        _ranges(rings.lengths) + np.repeat(lowest - starts, rings.lengths)
    ) % np.repeat(rings.lengths, rings.lengths)
    rings = Rings(rings.start[turned], rings.stop[turned], rings.lengths, rings.owners)

    x, y = rings.start.T
    begins = nodes[y, x]
    closed = ~begins[starts]
    begins[starts] = True
    first = np.flatnonzero(begins)
    lengths = np.diff(first, append=len(begins))
    last = first + lengths - 1
    # a quarter of the way along a step is a place that no other step has, nor the same step walked backwards
    there, back = (
        (3 * a + b) @ np.array([1, 4 * nodes.shape[1]])
        for a, b in (
            (rings.start[first].astype(np.int64), rings.stop[first]),
            (rings.stop[last].astype(np.int64), rings.start[last]),
        )
    )
    _, samples, edge = np.unique(np.minimum(there, back), return_index=True, return_inverse=True)
    forward = (there < back) == (there < back)[samples][edge]
    return rings, _Arcs(first, lengths, ring[first], closed[ring[first]], edge, forward, samples)


def _simplified(rings: Rings, arcs: _Arcs, tolerance: float, placed: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Polygons from the arcs; where a tolerance would make one invalid, its arcs get half of it, and at last none."""
    cut = tolerance > CUT_CORNER
    lines = _lines(rings, arcs, cut)
    simple, edges = lines.copy(), np.arange(len(lines))
    tolerances = np.full(len(lines), tolerance - CUT_CORNER if cut else tolerance)
    shells = np.diff(rings.owners, prepend=-1) > 0
    bad = np.empty(shells.sum(), dtype=bool)
    while True:
        simple[edges] = shapely.simplify(lines[edges], tolerances[edges], preserve_topology=False)
        outlines = _assembled(simple, rings, arcs, placed)
        polygons = shapely.polygons(outlines, indices=rings.owners)
        changed = np.unique(rings.owners[arcs.rings[np.isin(arcs.edge, edges)]])
        bad[changed] = ~shapely.is_valid(polygons[changed])
        # valid polygons of which none is turned inside out fill the block without gaps or overlaps
        bad[rings.owners[shapely.is_ccw(outlines) == shells]] = True
        edges = np.unique(arcs.edge[bad[rings.owners][arcs.rings]])
        if not tolerances[edges].any():
            return polygons
        tangled = edges[_tangled(simple[edges])]
        edges = tangled if tolerances[tangled].any() else edges
        halves = tolerances[edges] / 2
        tolerances[edges] = np.where(halves < LEAST_TOLERANCE, 0, halves)


def _tangled(lines: np.ndarray) -> np.ndarray:
    """Indices of the lines that cross others or themselves."""
    first, second = shapely.STRtree(lines).query(lines)
    shapely.prepare(lines)
    # most lines that meet do so at a node; and each pair once, as the relation of two lines takes the time
    pairs = (first < second) & shapely.intersects(lines[first], lines[second])
    first, second = first[pairs], second[pairs]
    crossing = shapely.crosses(lines[first], lines[second])
    return np.unique(np.concatenate([first[crossing], second[crossing], np.flatnonzero(~shapely.is_simple(lines))]))


def _lines(rings: Rings, arcs: _Arcs, cut: bool) -> np.ndarray:
    """The line of each edge, through its pixels' corners, or where these are ``cut`` through the middles of its steps.

    A cut line keeps its two nodes.
    """
    first, lengths, closed = arcs.first[arcs.samples], arcs.lengths[arcs.samples], arcs.closed[arcs.samples]
    step = np.repeat(first, lengths) + _ranges(lengths)
    line = np.repeat(np.arange(len(first)), lengths)
    if cut:
        points = (rings.start[step] + rings.stop[step]) / 2
        ends = np.where(closed[:, None], (rings.start[first] + rings.stop[first]) / 2, rings.stop[first + lengths - 1])
        points = np.concatenate([rings.start[first[~closed]], points, ends])
        indices = np.concatenate([np.flatnonzero(~closed), line, np.arange(len(first))])
    else:
        points = np.concatenate([rings.start[step], rings.stop[first + lengths - 1]])
        indices = np.concatenate([line, np.arange(len(first))])
    order = np.argsort(indices, kind="stable")
    return shapely.linestrings(points[order].astype(float), indices=indices[order])


def _assembled(lines: np.ndarray, rings: Rings, arcs: _Arcs, placed: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The rings from the lines of their edges."""
    points = placed(shapely.get_coordinates(lines))
    counts = shapely.get_num_coordinates(lines)
    starts = _starts(counts)[arcs.edge]
    # an arc's last point is the first of the next one
    taken = counts[arcs.edge] - 1
    along = _ranges(taken)
    along = np.where(np.repeat(arcs.forward, taken), along, np.repeat(taken, taken) - along)
    points = points[np.repeat(starts, taken) + along]
    ring = np.repeat(arcs.rings, taken)
    lengths = np.bincount(ring, minlength=len(rings.lengths))
    # a ring needs four points, also one that is squashed and will be found invalid
    closing = np.maximum(4 - lengths, 1)
    first = _starts(lengths)
    at = np.repeat(first + lengths, closing)
    points = np.insert(points, at, points[np.repeat(first, closing)], axis=0)
    ring = np.insert(ring, at, np.repeat(np.arange(len(lengths)), closing))
    return shapely.linearrings(points, indices=ring)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where each of several runs begins that lie one after the other."""
    return np.cumsum(lengths) - lengths


def _ranges(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... within each of several runs."""
    return np.arange(lengths.sum()) - np.repeat(_starts(lengths), lengths)
