"""A small prepared dataset, and a training on it, for the tests that run the bundle."""

import numpy as np
import pytest
import torch
from PIL import Image

import lightmuseg
from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.networks import LightMuSeg


def write_region(folder, name, seed, size=(150, 100)):
    """Dark discs, coded as tumor, on a light ground, coded as stroma; left and lower edges are outside the region."""
    generator = np.random.default_rng(seed)
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    mask = np.full((height, width), 2, np.uint8)
    for _ in range(6):
        x, y, radius = generator.integers(0, width), generator.integers(0, height), generator.integers(8, 25)
        mask[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = 1
    image = np.where((mask == 1)[..., None], (120, 60, 150), (230, 190, 220)) + generator.normal(
        0, 8, (height, width, 3)
    )
    mask[:, :5] = 0
    mask[-7:] = 7
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "rgbs" / f"{name}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A BCSS-like folder of four patients, in a path with a space and letters outside ASCII."""
    folder = tmp_path_factory.mktemp("données de Ärzten")
    for kind in ("rgbs", "masks"):
        (folder / kind).mkdir()
    for number in range(4):
        write_region(folder, f"TCGA-A{number}-000{number}-DX1_xmin{number}_ymin7_MPP-0.2500", number)
    return folder


@pytest.fixture(scope="session")
def dataset(source, tmp_path_factory):
    """The prepared dataset of that folder, tiles of 64 pixels."""
    output = tmp_path_factory.mktemp("prépared tiles") / "dataset"
    prepare_bcss(source, output, tile_size=64, val_fraction=0.25, test_fraction=0.25)
    return output


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of random weights of a network whose maps have both classes: its median logit is 0."""
    torch.manual_seed(0)
    network = LightMuSeg(encoder_weights=None).eval()
    with torch.no_grad():
        network.head.conv.weight *= 100
        network.head.conv.bias -= network(torch.randn(2, 3, 64, 64)).median()
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def version():
    """The package's version."""
    return lightmuseg.__version__
