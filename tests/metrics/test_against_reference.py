import numpy as np
import pytest
import torch
from PIL import Image

SIZES = [(1, 2), (2, 2), (7, 5), (33, 20), (64, 96)]


def rectangle(shape, top, bottom, left, right):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def pixel(shape, row, column):
    mask = np.zeros(shape, bool)
    mask[row, column] = True
    return mask


def masks():
    """Name and mask, [H, W], of every kind."""
    rng = np.random.default_rng(0)
    for shape in SIZES:
        yield f"random {shape}", rng.random(shape) < 0.4
        yield f"empty {shape}", np.zeros(shape, bool)
        yield f"full {shape}", np.ones(shape, bool)
    shape = (13, 18)
    for row in (0, 5, 12):
        for column in (0, 8, 17):
            yield f"pixel at {row}, {column}", pixel(shape, row, column)
            yield f"all but {row}, {column}", ~pixel(shape, row, column)
    # centroids just between two pixels, towards both neighbours
    for side in (2, 4):
        for start in (0, 3, 4, 8):
            yield f"square of {side} at {start}", rectangle(shape, start, start + side, start + 1, start + 1 + side)
    yield "two far apart", rectangle(shape, 0, 3, 0, 4) | rectangle(shape, 9, 12, 11, 17)
    yield "left half", rectangle(shape, 0, 13, 0, 9)
    yield "last row", rectangle(shape, 12, 13, 0, 18)


def predictions(mask):
    """Name and probabilities, float32 [H, W], of every kind."""
    rng = np.random.default_rng(mask.sum())
    yield "random", rng.random(mask.shape)
    yield "near the mask", np.clip(mask * 0.8 + rng.normal(0.1, 0.08, mask.shape), 0, 1)
    yield "on the levels' bounds", rng.integers(0, 256, mask.shape) / 255
    yield "the mask", mask
    yield "its inverse", ~mask
    yield "two values", np.where(mask, 0.9, 0.3)
    yield "only large", np.where(rng.random(mask.shape) < 0.1, 0.9999999, 1)
    yield "tiny", rng.random(mask.shape) * 1e-6
    for value in (0, 1e-7, 0.1, 1 / 3, 0.5, 0.7, 0.9999999, 1):
        yield f"all {value}", np.full(mask.shape, value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_equals_the_reference(pair):
    metric, reference = pair
    for kind, mask in masks():
        for prediction, probability in predictions(mask):
            probability = probability.astype(np.float32)
            value = metric()(torch.from_numpy(probability)[None, None], torch.from_numpy(mask)[None, None].float())
            expected = reference(probability, mask)
            assert value.item() == pytest.approx(expected, abs=1e-5), f"{kind}, {prediction}"


def test_double_precision_equals_the_reference(pair):
    metric, reference = pair
    rng = np.random.default_rng(1)
    mask = rng.random((40, 31)) < 0.3
    # just below the levels' bounds, where float32 is on them
    probability = rng.integers(1, 256, mask.shape) / 255 - 1e-12
    value = metric()(torch.from_numpy(probability)[None, None], torch.from_numpy(mask)[None, None])
    assert value.item() == pytest.approx(reference(probability, mask), abs=1e-6)


def test_batches_and_channels_equal_the_reference(pair):
    metric, reference = pair
    rng = np.random.default_rng(2)
    mask = rng.random((5, 3, 21, 34)) < np.linspace(0, 1, 15).reshape(5, 3, 1, 1)
    probability = rng.random(mask.shape).astype(np.float32)
    value = metric()(torch.from_numpy(probability), torch.from_numpy(mask).to(torch.uint8))
    expected = [[reference(p, m) for p, m in zip(*image)] for image in zip(probability, mask)]
    np.testing.assert_allclose(value.numpy(), expected, atol=1e-5)


def smooth(mask, seed):
    """Probabilities like a network's: the mask blurred, shifted and with noise."""
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(mask).float()[None]
    blurred = torch.nn.functional.avg_pool2d(mask, 31, 1, 15, count_include_pad=False)[0].numpy()
    noisy = np.roll(blurred, (5, -9), (0, 1)) * 8 - 4 + rng.normal(0, 1, blurred.shape)
    return (1 / (1 + np.exp(-noisy))).astype(np.float32)


@pytest.mark.parametrize("folder", ["bcss/tumor_masks", "bcss/masks", "camelyon"])
def test_real_masks_equal_the_reference(folder, pair, data):
    metric, reference = pair
    paths = sorted(path for path in (data / folder).rglob("*.png") if folder != "camelyon" or "mask" in str(path))
    assert paths
    tiles = []
    for path in paths[:3]:
        codes = np.asarray(Image.open(path))[300:700, :512]
        # masks of 0 and 255, or codes with 1 for tumor
        tiles.append(codes == (1 if folder == "bcss/masks" else 255))
    assert any(0 < tile.mean() < 1 for tile in tiles)
    for seed, mask in enumerate(tiles):
        probability = smooth(mask, seed)
        value = metric()(torch.from_numpy(probability)[None, None], torch.from_numpy(mask)[None, None].float())
        assert value.item() == pytest.approx(reference(probability, mask), abs=1e-5)
