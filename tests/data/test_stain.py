import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed

from lightmuseg.data import RandStaind


def fixed(factors, shifts):
    transform = RandStaind("image")
    transform.randomize = lambda data=None: None
    transform._do_transform, transform.factors, transform.shifts = True, np.array(factors), np.array(shifts)
    return transform


def picture(seed=0, low=40):
    pixels = np.random.default_rng(seed).integers(low, 256, (24, 31, 3))
    return pixels, {"image": torch.from_numpy(pixels).permute(2, 0, 1).float() / 255}


def test_nothing_changes_without_ranges():
    _, data = picture(low=0)
    assert torch.allclose(RandStaind("image")(data)["image"], data["image"], atol=1e-5)


def test_stains_change_by_factor_and_shift_in_optical_density():
    pixels, data = picture(low=0)
    factors, shifts = [1.2, 0.8, 1.1], [0.03, -0.02, 0.01]
    # the formula pixel by pixel, the stains by their colours as Ruifrok and Johnston print them
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    density = -np.log10((pixels.reshape(-1, 3) + 1) / 256)
    amounts = np.linalg.solve(stains.T, density.T).T * factors + shifts
    expected = (256 * 10 ** -(amounts @ stains) - 1).clip(0, 255) / 255
    found = fixed(factors, shifts)(data)["image"].permute(1, 2, 0).reshape(-1, 3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_stains_are_those_of_scikit_image():
    hematoxylin = np.zeros((1, 1, 3))
    hematoxylin[..., 0] = 0.25
    rgb = hed2rgb(hematoxylin)
    data = {"image": torch.from_numpy(rgb).permute(2, 0, 1).float()}
    more = fixed([1.4, 1, 1], [0, 0, 0])(data)["image"].permute(1, 2, 0).double().numpy()
    # scikit-image's densities are of another base and floor: the ratio of amounts stays
    found = rgb2hed(more)[0, 0]
    assert found[0] / rgb2hed(rgb)[0, 0, 0] == pytest.approx(1.4, rel=0.02)
    assert np.abs(found[1:]).max() < 0.01


def test_draws_cover_their_ranges_and_depend_on_the_seed():
    transform = RandStaind("image", 0.2, 0.05).set_random_state(5)
    draws = []
    for _ in range(300):
        transform.randomize()
        draws.append((transform.factors, transform.shifts))
    factors, shifts = map(np.array, zip(*draws))
    assert 0.8 <= factors.min() < 0.81 < 1.19 < factors.max() <= 1.2
    assert -0.05 <= shifts.min() < -0.048 < 0.048 < shifts.max() <= 0.05
    transform.set_random_state(5)
    transform.randomize()
    assert np.array_equal(transform.factors, factors[0])


@pytest.mark.parametrize("options", [{"stain_range": 1}, {"stain_range": -0.1}, {"stain_shift": -1}])
def test_ranges_without_sense_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        RandStaind("image", **options)
