import numpy as np
import pytest
import torch

from lightmuseg.networks import FRFM


def array(tensor):
    return tensor.detach().double().numpy()


def test_frfm_is_its_formula():
    torch.manual_seed(0)
    module = FRFM(12)
    x1, x2 = torch.randn(2, 12, 5, 7) + 0.5, torch.randn(2, 12, 5, 7)
    squeeze, excite = array(module.attention[0].weight), array(module.attention[2].weight)
    fuse = array(module.fuse.conv.weight)[:, :, 0, 0]
    for a, b, result in zip(array(x1), array(x2), array(module(x1, x2))):
        average = (a + b).mean((1, 2))
        weights = 1 / (1 + np.exp(-excite @ np.maximum(squeeze @ average, 0)))
        joined = np.concatenate([a * weights[:, None, None], b * weights[:, None, None]])
        np.testing.assert_allclose(result, np.einsum("oc,chw->ohw", fuse, joined), atol=1e-5)


def test_parameters_are_three_matrices_without_bias():
    shapes = [tuple(p.shape) for p in FRFM(24).parameters()]
    assert shapes == [(6, 24), (24, 6), (24, 48, 1, 1)]


@pytest.mark.parametrize(("channels", "height", "width"), [(16, 1, 1), (24, 3, 8), (96, 16, 4)])
def test_shape_is_kept(channels, height, width):
    x1, x2 = torch.randn(2, 2, channels, height, width)
    assert FRFM(channels)(x1, x2).shape == (2, channels, height, width)
