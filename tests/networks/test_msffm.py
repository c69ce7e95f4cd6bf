import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from lightmuseg.networks import MSFFM, SpatialAttention


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def array(tensor):
    return tensor.detach().double().numpy()


def convolve(x, kernel, bias=None):
    """x [C, H, W], kernel [out, C, k, k]: cross-correlation with zero padding, by scipy."""
    maps = [sum(correlate2d(x[c], k[c], mode="same") for c in range(len(x))) for k in kernel]
    return np.stack(maps) + (0 if bias is None else bias[:, None, None])


def spatial_attention(x, kernel):
    return x * sigmoid(convolve(np.stack([x.mean(0), x.max(0)]), kernel))


def composed(module):
    """The one 5x5 convolution that equals the three parallel ones and the 1x1 behind them."""
    channels = module.project.conv.out_channels
    fuse = array(module.fuse.conv.weight)[:, :, 0, 0]
    kernel = np.zeros((channels, channels, 5, 5))
    bias = array(module.fuse.conv.bias)
    for index, branch in enumerate(module.branches):
        mix = fuse[:, index * channels : (index + 1) * channels]
        margin = 2 - branch.conv.kernel_size[0] // 2
        inner = slice(margin, 5 - margin)
        kernel[:, :, inner, inner] += np.einsum("om,mikl->oikl", mix, array(branch.conv.weight))
        bias = bias + mix @ array(branch.conv.bias)
    return kernel, bias


@pytest.fixture
def module():
    torch.manual_seed(0)
    return MSFFM(8)


def test_parallel_convolutions_and_fuse_are_one_5x5_convolution(module):
    x = torch.randn(1, 8, 9, 12)
    fused = module.fuse(torch.cat([branch(x) for branch in module.branches], dim=1))
    np.testing.assert_allclose(array(fused)[0], convolve(array(x)[0], *composed(module)), atol=1e-5)


def test_msffm_is_its_formula(module):
    x = torch.randn(2, 8, 9, 12)
    squeeze, excite = module.channel_attention.fc[0], module.channel_attention.fc[2]
    assert squeeze.weight.shape == (2, 8)
    for image, result in zip(array(x), array(module(x))):
        y = convolve(image, *composed(module))
        hidden = np.maximum(array(squeeze.weight) @ y.mean((1, 2)) + array(squeeze.bias), 0)
        y = y * sigmoid(array(excite.weight) @ hidden + array(excite.bias))[:, None, None]
        y = spatial_attention(y, array(module.spatial_attention.conv.conv.weight))
        y = convolve(y, array(module.project.conv.weight), array(module.project.conv.bias))
        np.testing.assert_allclose(result, y, atol=1e-5)


def test_spatial_attention_is_its_formula():
    torch.manual_seed(1)
    module = SpatialAttention()
    x = torch.randn(2, 5, 10, 8)
    for image, result in zip(array(x), array(module(x))):
        np.testing.assert_allclose(result, spatial_attention(image, array(module.conv.conv.weight)), atol=1e-5)


def test_spatial_attention_is_one_7x7_convolution_without_bias():
    shapes = {name: tuple(p.shape) for name, p in SpatialAttention().named_parameters()}
    assert shapes == {"conv.conv.weight": (1, 2, 7, 7)}


@pytest.mark.parametrize("channels", [16, 24, 320])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (16, 8)])
def test_shape_is_kept(channels, height, width):
    assert MSFFM(channels)(torch.randn(2, channels, height, width)).shape == (2, channels, height, width)
