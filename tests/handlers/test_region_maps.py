"""Regions put together from tiles, against the region itself."""

import csv

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from lightmuseg.data.tiles import even_tile_starts
from lightmuseg.handlers import RegionMaps

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NAMES = ["tumor", "stroma"]
TILE = 32


def region(width, height, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    truth = rng.integers(0, 3, (height, width)).astype(np.uint8)
    truth[:4] = 255
    scores = rng.random((3, height, width)).astype(np.float32)
    return pixels, truth, scores / scores.sum(axis=0)


def tiles(name, pixels, truth, probability):
    """Batch items and outputs of one tile each, as the evaluator has them; filled up where the region is smaller."""
    height, width = truth.shape
    picture = (pixels / 255 - MEAN) / DEVIATION
    for y in even_tile_starts(height, TILE):
        for x in even_tile_starts(width, TILE):

            def cut(maps, fill, y=y, x=x):
                part = maps[..., y : y + TILE, x : x + TILE]
                missing = [(0, TILE - part.shape[-2]), (0, TILE - part.shape[-1])]
                return torch.from_numpy(np.pad(part, [(0, 0), *missing], constant_values=fill))

            mask = np.stack([np.where(truth == 255, 255, truth == index) for index in (1, 2)])
            place = {"roi": name, "x": x, "y": y, "region_width": width, "region_height": height}
            yield (
                {"image": cut(picture.transpose(2, 0, 1), 0), **place},
                {"probability": cut(probability[1:], 0), "mask": cut(mask, 255)},
            )


def evaluate(items, output):
    """Run the evaluator over batch items and outputs."""

    def step(engine, item):
        engine.state.batch = [item[0]]
        return [item[1]]

    engine = Engine(step)
    RegionMaps(output, NAMES, MEAN, DEVIATION).attach(engine)
    engine.run(items)


@pytest.fixture(scope="module")
def regions():
    return {"A": region(70, 50, 0), "B": region(20, 40, 1)}


@pytest.fixture(scope="module")
def rows(regions, tmp_path_factory):
    output = tmp_path_factory.mktemp("régions")
    evaluate([item for name, parts in regions.items() for item in tiles(name, *parts)], output)
    with (output / "regions.csv").open(encoding="utf-8") as file:
        return {(row["region"], row["class"]): row for row in csv.DictReader(file)}, output


def test_class_map_is_the_regions_most_probable_class(rows, regions):
    for name, (_, _, probability) in regions.items():
        stitched = np.asarray(Image.open(rows[1] / "regions" / f"{name}_classes.png"))
        assert np.array_equal(stitched, probability.argmax(axis=0))


def test_scores_are_those_of_the_whole_region(rows, regions):
    parts = {name: (truth, p.argmax(axis=0)) for name, (_, truth, p) in regions.items()}
    parts["all"] = tuple(np.concatenate([part[i].ravel() for part in parts.values()]) for i in range(2))
    for name, (truth, predicted) in parts.items():
        kept = truth != 255
        for index, class_name in enumerate(NAMES, start=1):
            true, found = (truth == index)[kept], (predicted == index)[kept]
            both = (true & found).sum()
            expected = {
                "dice": 2 * both / (true.sum() + found.sum()),
                "iou": both / (true | found).sum(),
                "sensitivity": both / true.sum(),
                "precision": both / found.sum(),
                "pixel_accuracy": (true == found).mean(),
            }
            row = rows[0][name, class_name]
            assert int(row["pixels"]) == true.sum()
            assert {key: float(row[key]) for key in expected} == pytest.approx(expected, abs=1e-6)


def test_picture_shows_the_region_beside_its_maps(rows, regions):
    pixels, truth, _ = regions["A"]
    picture = np.asarray(Image.open(rows[1] / "regions" / "A.png"))
    height, width = truth.shape
    assert picture.shape == (height, 3 * width + 24, 3)
    assert np.abs(picture[:, :width].astype(int) - pixels).max() <= 1
    annotated_as_other = truth == 0
    middle = picture[:, width + 12 : 2 * width + 12].astype(int)
    assert np.abs(middle - pixels)[annotated_as_other].max() <= 1
    assert np.abs(middle - pixels)[truth == 1].max() > 20


def test_overlapping_tiles_are_averaged(tmp_path):
    pixels, truth, _ = region(48, 32, 2)
    # tumor and stroma: above, the mean of both tiles is the first one's class; below, their sum would be tumor
    first, second = np.zeros((2, 3, 32, 48), np.float32)
    first[1:, :16], second[1:, :16] = [[[0.8]], [[0.1]]], [[[0.1]], [[0.5]]]
    first[1, 16:], second[1, 16:] = 0.4, 0.3
    evaluate([list(tiles("A", pixels, truth, p))[index] for index, p in enumerate((first, second))], tmp_path)
    classes = np.zeros((32, 48), np.uint8)
    classes[:16, :32], classes[:16, 32:] = 1, 2
    assert np.array_equal(np.asarray(Image.open(tmp_path / "regions" / "A_classes.png")), classes)


def test_tiles_that_do_not_follow_one_another_are_refused(regions, tmp_path):
    parts = {name: list(tiles(name, *values)) for name, values in regions.items()}
    items = [parts["A"][0], parts["B"][0], parts["A"][1], parts["B"][1]]
    with pytest.raises(ValueError, match="do not follow"):
        evaluate(items, tmp_path)
