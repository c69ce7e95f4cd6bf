"""Patches of a slide: where they lie, how unsure the network is of each, and which to annotate next."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch

from lightmuseg.areas.tissue import tissue_of
from lightmuseg.classes import probabilities_of
from lightmuseg.data.tiles import even_tile_starts
from lightmuseg.wsi.model_view import ModelView, whole

from .bundle_network import BundleNetwork
from .image_scores import dropout_passes, mutual_information, predictive_entropy
from .prediction import Box, opened

# of a slide; beyond them an even choice stands for the rest
MOST_PATCHES = 64
# of Monte Carlo dropout
PASSES = 8
# A patch with less tissue is left out.
LEAST_TISSUE = 0.25
# of a level that is read whole to find tissue
MOST_THUMBNAIL_PIXELS = 1_000_000_000


def patches_of(view: ModelView, size_m: int, most: int) -> list[tuple[int, int]]:
    """Left upper corners (xm, ym) of patches of ``size_m`` model pixels on tissue; at most ``most``, evenly chosen.

    Of a slide or picture without tissue, of one no larger than a patch, and of one whose smallest level is too large to
    look for tissue in, every patch.
    """
    xs, ys = (even_tile_starts(size, size_m) for size in (view.width, view.height))
    corners = [(x, y) for y, x in itertools.product(ys, xs)]
    smallest = view.reader.levels[-1]
    if len(corners) > 1 and smallest.width * smallest.height <= MOST_THUMBNAIL_PIXELS:
        tissue, step0 = tissue_of(view.reader), size_m * view.scale / 16
        shares = [tissue.mask(x * view.scale, y * view.scale, step0, 16, 16).mean() for x, y in corners]
        corners = [corner for corner, share in zip(corners, shares) if share >= LEAST_TISSUE] or corners
    if len(corners) > most:
        chosen = np.random.default_rng(0).choice(len(corners), most, replace=False)
        corners = [corners[index] for index in sorted(chosen)]
    return corners


def random_patch(view: ModelView, size_m: int) -> list[float | None]:
    """A patch by chance: [x, y, width, height] in level-0 pixels, and None for its score."""
    return [*_box0(view, random.choice(patches_of(view, size_m, MOST_PATCHES)), size_m), None]


def _box0(view: ModelView, corner_m: tuple[int, int], size_m: int) -> list[int]:
    """The part on the slide of a patch: x, y, width and height in level-0 pixels."""
    level0 = view.reader.levels[0]
    x0, y0 = (round(place * view.scale) for place in corner_m)
    side0 = round(size_m * view.scale)
    return [x0, y0, min(side0, level0.width - x0), min(side0, level0.height - y0)]


def score_patches(path: Path, network: BundleNetwork, method: str, most: int = MOST_PATCHES) -> dict[str, Any]:
    """How unsure the network is of an image and of its patches.

    Args:
        path: of a slide or picture.
        network: the network.
        method: "entropy" (mean predictive entropy) or "epistemic" (mean mutual information of Monte Carlo dropout).
        most: patches to look at.

    Returns:
        Plain values: ``score``, the mean over the patches, 0 to 1; ``patches``, [x, y, width, height, score] of each in
        level-0 pixels, the least sure first; ``weights_sha256``.
    """
    size, rows = network.tile_size, []
    with opened(path, network) as reader:
        view = ModelView(reader, network.mpp)
        for corner in patches_of(view, size, most):
            pixels = whole(*view.read_batch([corner], size))
            if pixels is None:
                continue
            # what lies over the edge of a small image is no tissue of it
            height, width = (min(size, limit - start) for limit, start in zip((view.height, view.width), corner[::-1]))
            score = _uncertainty(pixels, network, method, height, width)
            rows.append([*_box0(view, corner, size), round(float(score), 6)])
    rows.sort(key=lambda row: -row[4])
    mean = round(float(np.mean([row[4] for row in rows])), 6) if rows else 0.0
    return {"score": mean, "patches": rows, "weights_sha256": network.sha256}


def _uncertainty(pixels: np.ndarray, network: BundleNetwork, method: str, height: int, width: int) -> float:
    # a copy, as PyTorch takes no array that is only to be read
    tiles = np.stack([pixels])
    stride = network.runtime.output_stride
    inside = (..., slice(0, max(1, height // stride)), slice(0, max(1, width // stride)))
    if method == "entropy":
        probabilities = probabilities_of(network.runtime(tiles)[0])
        return predictive_entropy(probabilities[inside]).mean()
    images = network.stochastic.normalised(torch.from_numpy(tiles).to(network.device))
    passes = dropout_passes(network.stochastic.network, images, PASSES, seed=0)
    return mutual_information(passes[:, 0].cpu().numpy()[inside]).mean()


def next_patch(
    scored: Mapping[str, Any], annotated: shapely.Geometry | None, taken: Sequence[Sequence[int]] = ()
) -> list[float] | None:
    """The least sure patch [x, y, width, height, score] that is neither annotated nor taken; None where all are.

    Args:
        scored: what :func:`score_patches` gave.
        annotated: where the image is annotated already, in level-0 pixels.
        taken: x, y and more of patches that others have been sent to.
    """
    for patch in scored["patches"]:
        x, y, width, height, _ = patch
        box = shapely.box(x, y, x + width, y + height)
        done = annotated is not None and shapely.intersection(box, annotated).area > box.area / 2
        if not done and all([x, y] != list(other[:2]) for other in taken):
            return patch
    return None


def fitted(patch: Sequence[float], size: tuple[int, int], level0: tuple[int, int]) -> Box:
    """A box of another size around the middle of a patch, moved onto the slide; level-0 pixels."""
    width, height = (min(side, limit) for side, limit in zip(size, level0))
    x = round(patch[0] + patch[2] / 2 - width / 2)
    y = round(patch[1] + patch[3] / 2 - height / 2)
    return Box(min(max(0, x), level0[0] - width), min(max(0, y), level0[1] - height), width, height)
