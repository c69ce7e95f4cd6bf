"""Fine-tuning on what has been annotated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightmuseg.data.bcss import Region, read_mask
from lightmuseg.data.tiles import Cut, write_dataset
from lightmuseg.errors import InputError
from lightmuseg.networks.weights import load_weights
from lightmuseg.slides.readers import UnreadablePixels
from lightmuseg.slides.view import ModelView, ViewPart

from .ground_truth import GroundTruth, read_ground_truth
from .network import BundleNetwork
from .prediction import MAX_PIXELS, Box, opened, part_of

# pixels of a side that are read at once
BLOCK = 1024
# Of a tile's pixels; tiles with less of them annotated teach little.
LEAST_ANNOTATED = 0.02


@dataclass(frozen=True)
class LabelledImage:
    """An image of the datastore with its label; ``info`` is what the client said of the label."""

    id: str
    image: Path
    label: Path
    info: dict[str, Any]


def prepare(labelled: Sequence[LabelledImage], network: BundleNetwork, folder: Path, held_out: float) -> dict[str, Any]:
    """Write what is annotated as a prepared dataset, ``folder/dataset``, and return its manifest.

    Each annotated rectangle is divided into cells of at least a tile; a cell is held out (split "val") by a hash of its
    image and place, so that it stays held out in every training.

    Args:
        labelled: images with labels.
        network: for its um/px, tile size and classes.
        folder: new.
        held_out: share of the cells, 0 to 1.

    Raises:
        InputError: where less than two cells are annotated, or a label cannot be used.
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out {held_out}: give a share between 0 and 1.")
    folder.mkdir(parents=True, exist_ok=True)
    ranked = sorted(
        (cell for one in labelled for cell in _cells(one, network, folder)), key=lambda cell: (cell[0], cell[1].name)
    )
    if len(ranked) < 2:
        size = network.tile_size * network.mpp
        raise InputError(
            f"{len(ranked)} annotated patches: one to learn from and one to hold out are needed, each of {size:.0f} x "
            f"{size:.0f} um; annotate more."
        )
    count = sum(rank < held_out for rank, *_ in ranked)
    count = min(max(count, 1), len(ranked) - 1)
    cuts = [Cut(region, "val" if place < count else "train", box) for place, (_, region, box) in enumerate(ranked)]
    return write_dataset(
        cuts, folder / "dataset", {"dataset": "label", "held_out": held_out}, network.tile_size, read_mask,
        LEAST_ANNOTATED,
    )  # fmt: skip


def _cells(
    one: LabelledImage, network: BundleNetwork, folder: Path
) -> Iterator[tuple[float, Region, tuple[int, int, int, int]]]:
    """Rank in [0, 1), region and box of each cell of an image, whose annotated rectangles are written as regions."""
    with opened(one.image, network) as reader:
        truth = read_ground_truth(one.label, f"{one.id}{one.label.suffix}", reader, network.codes, one.info)
        view = ModelView(reader, network.mpp)
        for index, box in enumerate(truth.boxes):
            part = part_of(view, _grown(box, view, network.tile_size))
            if part.width * part.height > MAX_PIXELS:
                raise InputError(
                    f"{one.id}: {part.width} x {part.height} pixels are annotated in one piece, more than "
                    f"{MAX_PIXELS / 1e6:.0f} megapixels; draw Region* around smaller parts."
                )
            name = f"{hashlib.sha256(one.id.encode()).hexdigest()[:12]}_{index}"
            region = Region(
                name, one.id, folder / f"{name}.png", folder / f"{name}_mask.png", round(part.x0), round(part.y0),
                network.mpp,
            )  # fmt: skip
            _write_region(region, part, truth)
            yield from ((_rank(one.id, part, cell), region, cell) for cell in cells(part, network.tile_size))


def _grown(box: Box, view: ModelView, tile_size: int) -> Box:
    """The box with its surroundings, where it is smaller than a tile."""
    level0 = view.reader.levels[0]
    least = round(tile_size * view.scale + 0.5)
    width, height = (
        min(max(size, least), limit) for size, limit in ((box.width0, level0.width), (box.height0, level0.height))
    )
    x0 = min(max(0, box.x0 - (width - box.width0) // 2), level0.width - width)
    y0 = min(max(0, box.y0 - (height - box.height0) // 2), level0.height - height)
    return Box(x0, y0, width, height)


def cells(part: ViewPart, tile_size: int) -> Iterator[tuple[int, int, int, int]]:
    """Disjoint boxes (x, y, width, height) of a part that cover it, each at least a tile where the part is."""
    xs, ys = (np.linspace(0, size, max(1, size // tile_size) + 1).astype(int) for size in (part.width, part.height))
    for upper, lower in pairwise(ys):
        for left, right in pairwise(xs):
            yield int(left), int(upper), int(right - left), int(lower - upper)


def _rank(image_id: str, part: ViewPart, cell: tuple[int, int, int, int]) -> float:
    x0, y0 = (round(start + place * part.scale) for start, place in ((part.x0, cell[0]), (part.y0, cell[1])))
    return int(hashlib.sha256(f"{image_id} {x0} {y0}".encode()).hexdigest()[:13], 16) / 16**13


def _write_region(region: Region, part: ViewPart, truth: GroundTruth) -> None:
    pixels = np.empty((part.height, part.width, 3), np.uint8)
    corners = [(x, y) for y in range(0, part.height, BLOCK) for x in range(0, part.width, BLOCK)]
    for (x, y), block in zip(corners, part.read_batch(corners, BLOCK)):
        if isinstance(block, UnreadablePixels):
            raise block
        here = pixels[y : y + BLOCK, x : x + BLOCK]
        here[:] = block[: here.shape[0], : here.shape[1]]
    Image.fromarray(pixels).save(region.image, compress_level=1)
    codes = truth.codes(part.x0, part.y0, part.scale, part.width, part.height)
    Image.fromarray(codes).save(region.mask)


def dice_on_held_out(network: BundleNetwork, weights: Path, dataset: Path, output: Path) -> float:
    """Pooled Dice, 0 to 1, of weights on a dataset's held-out tiles."""
    config = network.configured("train", dataset_dir=str(dataset), output_dir=str(output), encoder_weights=None)
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
    config = network.configured(
        "train", dataset_dir=str(dataset), output_dir=str(output), initial_weights=str(network.weights), **options
    )
    config.get_parsed_content("training")
    return output / "model.pt"
