"""Small slides with maps that are known pixel by pixel, as folders of results."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw
from segmented_slides import segmented
from starlette.testclient import TestClient

from lightmuseg.engine.counts import Counts
from lightmuseg.engine.entropy import Entropies
from lightmuseg.outputs import FORMATS
from lightmuseg.view.app import make_app
from lightmuseg.view.result_list import Results

NAMES = ("tumor", "stroma")
MPP, DOWNSAMPLE = 0.5, 2
WIDTH, HEIGHT = 1500, 1102


def class_map_of(classes, mpp=MPP, downsample=DOWNSAMPLE):
    def bands(height):
        return (classes[top : top + height] for top in range(0, len(classes), height))

    height, width = classes.shape
    return SimpleNamespace(
        width=width, height=height, mpp=mpp * downsample, downsample=downsample, class_names=NAMES, bands=bands
    )


def drawn_classes():
    """A square of tumor with a hole, a disc of stroma, a corner that could not be read."""
    image = Image.new("L", (WIDTH // DOWNSAMPLE, HEIGHT // DOWNSAMPLE))
    draw = ImageDraw.Draw(image)
    draw.rectangle((100, 100, 299, 299), fill=1)
    draw.rectangle((180, 180, 219, 219), fill=0)
    draw.ellipse((400, 200, 640, 440), fill=2)
    draw.rectangle((700, 500, 749, 550), fill=255)
    return np.asarray(image)


def write_slide(path, seed=0):
    """A tiled pyramid of two levels without loss: soft colours, every place another."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(rows / (70 + 13 * n) + seed + n) + np.cos(columns / (90 + 17 * n)) for n in range(3)]
    pixels = np.stack([(128 + 60 * wave).astype(np.uint8) for wave in waves], axis=-1)
    with tifffile.TiffWriter(path) as file:
        for level in range(2):
            part = np.asarray(Image.fromarray(pixels).resize((WIDTH >> level, HEIGHT >> level), Image.Resampling.BOX))
            file.write(
                part, tile=(256, 256), photometric="rgb", compression="zlib", subfiletype=int(level > 0),
                resolution=(1e4 / (MPP * 2**level),) * 2, resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    return pixels


def write_result(folder, slide, classes, warnings=(), size=(WIDTH, HEIGHT), mpp=MPP, downsample=DOWNSAMPLE):
    """What lightmuseg segment leaves of a slide."""
    folder.mkdir(parents=True)
    class_map = class_map_of(classes, mpp, downsample)
    step0 = max(1.0, max(size) / 2000)
    grey = np.full((math.ceil(size[1] / step0), math.ceil(size[0] / step0), 3), 230, np.uint8)
    counts = Counts.of(NAMES)
    counts.add(classes, *np.ones((2, *classes.shape), bool))
    results = segmented(class_map, counts=counts, entropies=Entropies.of(NAMES), picture=grey, step0=step0)
    for name in ("classes.tif", "regions.geojson", "overlay.png", "measurements.csv"):
        FORMATS[name].write(folder / name, results)
    record = {
        "slide": str(slide), "reader": "cucim", "level0_size": list(size), "level0_mpp": mpp,
        "map_size": [class_map.width, class_map.height], "map_mpp": class_map.mpp,
        "options": {"class_names": list(NAMES)}, "warnings": list(warnings),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="session")
def classes():
    return drawn_classes()


@pytest.fixture(scope="session")
def class_map():
    """Makes what writers take of class indices."""
    return class_map_of


@pytest.fixture(scope="session")
def new_result():
    """Makes a folder of results of a slide and a map."""
    return write_result


@pytest.fixture(scope="session")
def made(tmp_path_factory, classes):
    """Two results at different depths and their slides, beside what is none; nothing of it is changed by tests."""
    base = tmp_path_factory.mktemp("view")
    root = base / "results"
    write_slide(base / "one.tif")
    write_slide(base / "two.tif", seed=2)
    write_result(root / "one", base / "one.tif", classes, ["the <b>slide</b> is blurred"])
    write_result(root / "patient 7" / "left" / "two", base / "two.tif", classes[::-1])
    (root / "one" / "report.html").write_text("<!doctype html><style>p {color: red}</style><p>report</p>")
    (base / "secret.txt").write_text("secret")
    return base


@pytest.fixture
def client(made):
    """A browser without a network."""
    results = Results(made / "results")
    results.refresh()
    with TestClient(make_app(results, "127.0.0.1"), base_url="http://127.0.0.1:8080") as asking:
        yield asking


@pytest.fixture
def ids(client):
    """The results' ids by place."""
    return {one["place"]: one["id"] for one in client.get("/results").json()["results"]}
