"""Fine-tuning on what has been annotated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lightmuseg.data.bcss import Region
from lightmuseg.data.ground_truth import UNKNOWN, GroundTruth
from lightmuseg.data.tiles import Cut, Tiling, write_dataset
from lightmuseg.errors import InputError
from lightmuseg.networks.weights import load_weights
from lightmuseg.wsi.model_view import ModelView, whole

from .bundle_network import BundleNetwork
from .label_file import read_ground_truth
from .prediction import MAX_PIXELS, Box, opened

# pixels of a side that are read at once
BLOCK = 1024
# Of a cell's or tile's pixels; those with fewer annotated teach little.
LEAST_ANNOTATED = 0.02


class LabelledImage(NamedTuple):
    """An image of the datastore with its label; ``info`` is what the client stated of the label."""

    id: str
    image: Path
    label: Path
    info: dict[str, Any]


def prepare(labelled: Sequence[LabelledImage], network: BundleNetwork, folder: Path, held_out: float) -> dict[str, Any]:
    """Write what is annotated as a prepared dataset, ``folder/dataset``, and return its manifest.

    Each annotated rectangle is divided into cells of at least a tile. A cell is held out (split "val") by a hash of its
    image and place, so that none is held out that an earlier training learned from. Of the cells with a class of the
    network, and of those without, at least one is held out where there are two, and one is learned from.

    Args:
        labelled: images with labels.
        network: for its um/px, tile size and classes.
        folder: new.
        held_out: share of the cells, 0 to 1.

    Raises:
        InputError: where less than two cells are annotated, or a label cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = [cell for one in labelled for cell in _cells(one, network, folder)]
    cuts = []
    for with_class in (True, False):
        ranked = sorted((cell for cell in found if cell.with_class is with_class), key=lambda cell: cell.rank)
        count = min(max(1, sum(cell.rank < held_out for cell in ranked)), len(ranked) - 1) if ranked else 0
        cuts += [Cut(c.region, "val" if place < count else "train", c.box) for place, c in enumerate(ranked)]
    if len({cut.split for cut in cuts}) < 2:
        size = network.tile_size * network.mpp
        raise InputError(
            f"{len(cuts)} annotated patches: two with {' or '.join(network.class_names)} are needed, one to learn from "
            f"and one to hold out, each of {size:.0f} x {size:.0f} um; annotate more."
        )
    tiling = Tiling(network.tile_size, min_annotated=LEAST_ANNOTATED)
    return write_dataset(cuts, folder / "dataset", {"dataset": "label", "held_out": held_out}, tiling)


class _Cell(NamedTuple):
    """A part of a region: its rank by hash (0 to 1), its box in pixels, and if it has a class of the network."""

    rank: float
    region: Region
    box: tuple[int, int, int, int]
    with_class: bool


def _cells(one: LabelledImage, network: BundleNetwork, folder: Path) -> Iterator[_Cell]:
    """The cells of an image, whose annotated rectangles are written as regions."""
    wanted = [code for codes in network.codes.values() for code in codes]
    with opened(one.image, network) as reader:
        truth = read_ground_truth(one.label, f"{one.id}{one.label.suffix}", reader, network.label_codes, one.info)
        view = ModelView(reader, network.mpp)
        for index, box in enumerate(truth.boxes()):
            part = _grown(Box(*box), view, network.tile_size)
            if part.width * part.height > MAX_PIXELS:
                raise InputError(
                    f"{one.id}: {part.width} x {part.height} pixels are annotated in one piece, more than "
                    f"{MAX_PIXELS / 1e6:.0f} megapixels; draw Region* around smaller parts."
                )
            name = f"{hashlib.sha256(one.id.encode()).hexdigest()[:12]}_{index}"
            region = Region(
                name, one.id, folder / f"{name}.png", folder / f"{name}_mask.png",
                round(part.xm * view.scale), round(part.ym * view.scale),
                network.mpp,
            )  # fmt: skip
            codes = _write_region(region, view, part, truth)
            for x, y, width, height in cells(part.width, part.height, network.tile_size):
                cell = codes[y : y + height, x : x + width]
                if (cell != UNKNOWN).mean() >= LEAST_ANNOTATED:
                    rank = _rank(one.id, (part.xm + x) * view.scale, (part.ym + y) * view.scale)
                    yield _Cell(rank, region, (x, y, width, height), bool(np.isin(cell, wanted).any()))


class _Part(NamedTuple):
    """A rectangle of a slide in the model's pixels."""

    xm: int
    ym: int
    width: int
    height: int


def _grown(box: Box, view: ModelView, tile_size: int) -> _Part:
    """The model's pixels of a box, and as much around it as makes a tile of it where it is smaller."""
    sides = []
    for start0, size0, limit in ((box.x0, box.width0, view.width), (box.y0, box.height0, view.height)):
        start, size = round(start0 / view.scale), max(1, round(size0 / view.scale))
        grown = min(max(size, tile_size), limit)
        sides.append((min(max(0, start - (grown - size) // 2), limit - grown), grown))
    (xm, width), (ym, height) = sides
    return _Part(xm, ym, width, height)


def cells(width: int, height: int, tile_size: int) -> Iterator[tuple[int, int, int, int]]:
    """Disjoint boxes (x, y, width, height) that cover a rectangle, each at least a tile where that is.

    >>> list(cells(1100, 512, 512))
    [(0, 0, 550, 512), (550, 0, 550, 512)]
    """
    xs, ys = (np.linspace(0, size, max(1, size // tile_size) + 1).astype(int) for size in (width, height))
    for upper, lower in pairwise(ys):
        for left, right in pairwise(xs):
            yield int(left), int(upper), int(right - left), int(lower - upper)


def _rank(image_id: str, x0: float, y0: float) -> float:
    digest = hashlib.sha256(f"{image_id} {round(x0)} {round(y0)}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _write_region(region: Region, view: ModelView, part: _Part, truth: GroundTruth) -> np.ndarray:
    """Write a region's image and mask, and return the mask."""
    pixels = np.empty((part.height, part.width, 3), np.uint8)
    corners = [(x, y) for y in range(0, part.height, BLOCK) for x in range(0, part.width, BLOCK)]
    read = view.read_batch([(part.xm + x, part.ym + y) for x, y in corners], BLOCK)
    for (x, y), block in zip(corners, read):
        read_block = whole(block)
        if read_block is None:
            raise block
        target = pixels[y : y + BLOCK, x : x + BLOCK]
        target[:] = read_block[: target.shape[0], : target.shape[1]]
    Image.fromarray(pixels).save(region.image, compress_level=1)
    codes = truth.codes(part.xm * view.scale, part.ym * view.scale, view.scale, part.width, part.height)
    Image.fromarray(codes).save(region.mask)
    return codes


def dice_on_held_out(network: BundleNetwork, weights: Path, dataset: Path, output: Path) -> float:
    """Pooled Dice, 0 to 1, of weights on a dataset's held-out tiles."""
    config = network.training(dataset_dir=str(dataset), output_dir=str(output), encoder_weights=None)
    evaluator = config.get_parsed_content("validate#evaluator")
    load_weights(config.get_parsed_content("network"), weights)
    evaluator.run()
    return float(evaluator.state.metrics["val_pooled_dice"])


def fine_tune(network: BundleNetwork, dataset: Path, output: Path, **options: Any) -> Path:
    """Train from the network's weights as the bundle's train.json does, and return the file of the best epoch's.

    Args:
        network: to start from.
        dataset: of :func:`prepare`.
        output: folder of the training's files.
        options: keys of train.json, such as ``max_epochs`` and ``learning_rate``.
    """
    config = network.training(
        dataset_dir=str(dataset), output_dir=str(output), initial_weights=str(network.weights), **options
    )
    config.get_parsed_content("training")
    return output / "model.pt"
