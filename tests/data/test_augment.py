import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from lightmuseg.data import RandSimilarityd


def fixed(matrix, size, modes=("bilinear", "nearest")):
    """The transform with a matrix of ours instead of a random one."""
    transform = RandSimilarityd(["image", "label"], size, modes)
    transform.randomize = lambda data=None: setattr(transform, "matrix", torch.tensor(matrix, dtype=torch.float32))
    return transform


def example(height=40, width=40, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 6
    image = np.stack([np.sin(rows + c) + np.cos(columns * (1 + c / 3)) for c in range(3)])
    return {"image": torch.from_numpy(image).float(), "label": torch.from_numpy(rng.integers(0, 9, (1, height, width)))}


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0]], lambda x: x),
        ([[-1, 0, 0], [0, 1, 0]], lambda x: x.flip(-1)),
        ([[1, 0, 0], [0, -1, 0]], lambda x: x.flip(-2)),
        ([[0, -1, 0], [1, 0, 0]], lambda x: torch.rot90(x, 1, (-2, -1))),
        ([[1, 0, 3], [0, 1, -2]], lambda x: torch.nn.functional.pad(x, (0, 3, 2, 0), mode="reflect")),
    ],
    ids=["identity", "flip x", "flip y", "quarter turn", "shift"],
)
def test_exact_moves_move_pixels_exactly(matrix, expected):
    data = example()
    moved = fixed(matrix, (40, 40))(data)
    for key, values in data.items():
        wanted = expected(values.float())
        rows, columns = slice(2, None) if matrix[1][2] else slice(None), slice(0, 37) if matrix[0][2] else slice(None)
        if matrix[0][2]:
            wanted = values.float().roll((2, -3), (-2, -1))
        assert torch.allclose(moved[key][..., rows, columns], wanted[..., rows, columns], atol=1e-4), key


@pytest.mark.parametrize("size", [(40, 40), (24, 32)])
def test_rotation_and_scale_agree_with_scipy(size):
    angle, scale = 0.5, 1.2
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    data = example(40, 48)
    moved = fixed([[cos, -sin, 1.5], [sin, cos, -2.0]], size)(data)
    # scipy counts (row, column) from pixel centres; inside is where no pixel comes from outside
    matrix = np.array([[cos, sin], [-sin, cos]])
    centre_out, centre_in = (np.array(size) - 1) / 2, np.array([19.5, 23.5])
    offset = centre_in + np.array([-2.0, 1.5]) - matrix @ centre_out
    for channel in range(3):
        wanted = affine_transform(
            data["image"][channel].numpy(), matrix, offset, output_shape=size, order=1, cval=np.nan
        )
        inside = np.isfinite(wanted)
        assert inside.mean() > 0.5
        assert np.allclose(moved["image"][channel].numpy()[inside], wanted[inside], atol=1e-4)


def test_masks_keep_their_codes():
    moved = RandSimilarityd(["image", "label"], (40, 40), ["bilinear", "nearest"], scale_range=0.25)(example())
    assert set(moved["label"].unique().tolist()) <= set(range(9))


def test_image_and_mask_move_alike():
    label = example()["label"]
    transform = RandSimilarityd(["image", "label"], (40, 40), "nearest", True, 0.25, 5, 0.5)
    for _ in range(5):
        moved = transform({"image": label.float(), "label": label})
        assert torch.equal(moved["image"], moved["label"].float())


def test_draws_cover_their_ranges_and_depend_on_the_seed():
    transform = RandSimilarityd("image", (8, 8), scale_range=0.25, translate_range=5, flip_probability=0.5)
    transform.set_random_state(3)
    drawn = []
    for _ in range(400):
        transform.randomize()
        drawn.append(transform.matrix.numpy().copy())
    drawn = np.array(drawn)
    determinants = np.linalg.det(drawn[:, :, :2])
    scales = 1 / np.sqrt(np.abs(determinants))
    assert 0.75 <= scales.min() < 0.77
    assert 1.23 < scales.max() <= 1.25
    assert 4.8 < np.abs(drawn[:, :, 2]).max() <= 5
    # a flip of one axis alone changes the sign: half of all draws
    assert 0.4 < (determinants < 0).mean() < 0.6
    angles = np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0])
    assert np.histogram(angles, 8, (-np.pi, np.pi))[0].min() > 25
    transform.set_random_state(3)
    transform.randomize()
    assert np.array_equal(transform.matrix.numpy(), drawn[0])


def test_nothing_moves_without_ranges():
    data = example()
    moved = RandSimilarityd("image", (40, 40), rotate=False)(data)
    assert torch.allclose(moved["image"], data["image"], atol=1e-5)


@pytest.mark.parametrize("options", [{"scale_range": 1.0}, {"flip_probability": 2}, {"translate_range": -1}])
def test_ranges_without_sense_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        RandSimilarityd("image", (8, 8), **options)
