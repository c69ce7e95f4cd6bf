"""Weights for bfloat16 are rounded so that their errors cancel."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightmuseg.networks import LightMuSeg, UNet, fold, fold_for_bfloat16
from lightmuseg.networks.bfloat16 import _moments, _moments_of_inputs
from lightmuseg.runtimes import NormalisedNetwork

from .test_fold import by_chance, difference

NETWORKS = {
    "mobilenet_v2": lambda: LightMuSeg(encoder_weights=None),
    "efficientnet_b0": lambda: LightMuSeg(encoder_weights=None, backbone="efficientnet_b0"),
    "vit": lambda: LightMuSeg(encoder_weights=None, backbone="vit"),
    "U-Net": lambda: UNet(backbone="mobilenet_v2", encoder_weights=None),
}


def nearest(values):
    return values.to(torch.bfloat16).to(values.dtype)


def small_kernels(network):
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [one for one in convolutions if one.groups > 1 or one is convolutions[0]]


@pytest.mark.parametrize("name", NETWORKS)
def test_small_kernels_are_numbers_in_bfloat16_beside_the_trained_ones(name):
    torch.manual_seed(0)
    network = by_chance(NETWORKS[name](), seed=1)
    before = copy.deepcopy(network.state_dict())
    exact, rounded = fold(network), fold_for_bfloat16(network)
    for one, other in zip(small_kernels(exact), small_kernels(rounded), strict=True):
        assert torch.equal(nearest(other.weight), other.weight)
        # of 8 binary digits, the last up or down
        assert ((other.weight - one.weight).abs() <= 2**-7 * one.weight.abs()).float().mean() > 0.99
        assert torch.equal(one.bias, other.bias) if one.bias is not None else other.bias is None
    assert difference(exact, rounded, torch.randn(1, 3, 64, 64)) < 0.1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("name", "blocks"), [("mobilenet_v2", 17), ("efficientnet_b0", 16), ("vit", 0)])
def test_inputs_of_every_depthwise_convolution_are_known(name, blocks):
    assert len(_moments_of_inputs(NETWORKS[name]())) == blocks


def test_moments_are_those_of_a_clipped_normal_distribution():
    norm = nn.BatchNorm2d(4).eval()
    norm.bias.data, norm.weight.data = torch.tensor([0.5, -1.0, 4.0, 7.0]), torch.tensor([1.0, -2.0, 3.0, 0.5])

    def above(mean, deviation):
        """E[max(0, X)] of a normal distribution."""
        z = mean / deviation
        return mean * (1 + math.erf(z / math.sqrt(2))) / 2 + deviation * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    found = _moments(norm, nn.ReLU6())
    pairs = zip(norm.bias.tolist(), norm.weight.abs().tolist())
    assert found.mean.tolist() == pytest.approx([above(m, d) - above(m - 6, d) for m, d in pairs], abs=1e-3)
    drawn = (norm.bias + norm.weight * torch.randn(1_000_000, 4, generator=torch.Generator().manual_seed(0))).clip(0, 6)
    assert found.variance.tolist() == pytest.approx(drawn.var(0).tolist(), rel=0.02, abs=1e-3)


def test_fewer_pixels_of_a_real_picture_change_their_class(root):
    """All weights and biases rounded as a runtime rounds them, computed in float32."""
    network = LightMuSeg(encoder_weights=None)
    network.load_state_dict(torch.load(root / "bundle" / "models" / "model.pt", weights_only=True))
    network = network.float().eval()
    picture = np.asarray(Image.open(root / "bundle" / "docs" / "a1g6_test.jpg").convert("RGB"))
    height, width = (side // 32 * 32 for side in picture.shape[:2])
    tile = torch.from_numpy(picture[None, :height, :width].copy())

    def classes(one, rounded):
        one = copy.deepcopy(one)
        for parameter in one.parameters() if rounded else ():
            parameter.data = nearest(parameter.data)
        with torch.inference_mode():
            return NormalisedNetwork(one)(tile) > 0

    expected = classes(fold(network), False)
    changed = [(classes(made(network), True) != expected).float().mean() for made in (fold, fold_for_bfloat16)]
    assert 0 < changed[1] < changed[0] / 2
