"""Weights for bfloat16 are rounded so that their errors cancel."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from random_networks import by_chance, difference
from torch import nn

from lightmuseg.networks import LightMuSeg, UNet, fold
from lightmuseg.runtimes import NormalisedNetwork
from lightmuseg.runtimes.bfloat16 import MAX_TERMS, fold_for_bfloat16, moments, moments_of_inputs

NETWORKS = {
    "mobilenet_v2": lambda: LightMuSeg(encoder_weights=None),
    "efficientnet_b0": lambda: LightMuSeg(encoder_weights=None, backbone="efficientnet_b0"),
    "vit": lambda: LightMuSeg(encoder_weights=None, backbone="vit"),
    "U-Net": lambda: UNet(backbone="mobilenet_v2", encoder_weights=None),
}


def nearest(values):
    return values.to(torch.bfloat16).to(values.dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_chosen_weights_are_numbers_in_bfloat16_beside_the_trained_ones(name):
    torch.manual_seed(0)
    network = by_chance(NETWORKS[name](), seed=1)
    before = copy.deepcopy(network.state_dict())
    exact, rounded = fold(network), fold_for_bfloat16(network)
    others = dict(rounded.named_modules())
    known = moments_of_inputs(network)
    chosen = [(one, others[name]) for name, one in exact.named_modules() if name in known]
    assert chosen[0][0] is next(one for one in exact.modules() if isinstance(one, nn.Conv2d))
    for one, other in chosen:
        if one.weight[0].numel() <= MAX_TERMS:
            assert torch.equal(nearest(other.weight), other.weight)
            # of 8 binary digits, the last up or down
            assert ((other.weight - one.weight).abs() <= 2**-7 * one.weight.abs()).float().mean() > 0.99
        assert torch.equal(one.bias, other.bias) if one.bias is not None else other.bias is None
    assert difference(exact, rounded, torch.randn(1, 3, 64, 64)) < 0.1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("mobilenet_v2", "none"),
        # what a channel attention has weighed
        ("efficientnet_b0", "_project_conv|_se_expand"),
        # tokens of the transformer
        ("vit", r"adapters\.\d\.0\.|stem"),
    ],
)
def test_inputs_are_known_where_batch_norms_state_them(name, unknown):
    network = NETWORKS[name]()
    convolutions = {name for name, module in network.encoder.named_modules() if isinstance(module, nn.Conv2d)}
    known = {name.removeprefix("encoder.") for name in moments_of_inputs(network)}
    assert convolutions - known == {name for name in convolutions if re.search(unknown, name)}


def test_means_of_inputs_are_those_of_a_batch_that_is_normalised():
    """In training mode a batch norm's output has the very mean that it states, and so has a sum of such outputs."""
    network = LightMuSeg(encoder_weights=None).double()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data = torch.randn(module.bias.shape, generator=generator).double()
    stated = moments_of_inputs(network)
    seen = {}

    def note(name):
        return lambda module, given: seen.update({name: given[0].mean((0, 2, 3))})

    for name, module in network.encoder.features.named_modules():
        # a block's first 1x1 takes what the blocks before it made: one output of a batch norm, or a sum of several
        if isinstance(module, nn.Conv2d) and name.endswith("conv.0.0") and module.groups == 1:
            module.register_forward_pre_hook(note(f"encoder.features.{name}"))
    with torch.inference_mode():
        network.train()(torch.randn(4, 3, 64, 64, generator=generator).double())
    assert len(seen) == 16
    for name, means in seen.items():
        assert torch.allclose(means, stated[name].mean, atol=1e-6)


def test_errors_of_biases_cancel():
    """The mean of a 1x1's output is that of the trained one, where the nearest numbers miss it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), nn.ReLU6(), nn.Conv2d(32, 64, 1)).eval()
    network[1].bias.data.uniform_(0, 2)
    network[3].bias.data.uniform_(-4, 4)
    mean = moments(network[1], network[2]).mean.float()
    exact, rounded = fold(network)[3], fold_for_bfloat16(network)[3]

    def missed(weight):
        return ((nearest(weight) - exact.weight)[:, :, 0, 0] @ mean + nearest(exact.bias) - exact.bias).abs().mean()

    assert missed(rounded.weight) < missed(exact.weight) / 20


def test_moments_are_those_of_a_clipped_normal_distribution():
    norm = nn.BatchNorm2d(4).eval()
    norm.bias.data, norm.weight.data = torch.tensor([0.5, -1.0, 4.0, 7.0]), torch.tensor([1.0, -2.0, 3.0, 0.5])

    def above(mean, deviation):
        """E[max(0, X)] of a normal distribution."""
        z = mean / deviation
        return mean * (1 + math.erf(z / math.sqrt(2))) / 2 + deviation * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    found = moments(norm, nn.ReLU6())
    pairs = zip(norm.bias.tolist(), norm.weight.abs().tolist())
    assert found.mean.tolist() == pytest.approx([above(m, d) - above(m - 6, d) for m, d in pairs], abs=1e-3)
    drawn = (norm.bias + norm.weight * torch.randn(1_000_000, 4, generator=torch.Generator().manual_seed(0))).clip(0, 6)
    assert found.variance.tolist() == pytest.approx(drawn.var(0).tolist(), rel=0.02, abs=1e-3)


@pytest.fixture(scope="module")
def trained(root):
    network = LightMuSeg(encoder_weights=None)
    network.load_state_dict(torch.load(root / "bundle" / "models" / "model.pt", weights_only=True))
    return network.float().eval()


def in_bfloat16(network):
    """What a runtime makes of a folded network: weights, biases and results of layers rounded, sums in float32."""
    rounded = copy.deepcopy(network)
    for parameter in rounded.parameters():
        parameter.data = nearest(parameter.data)
    for module in rounded.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, given, made: nearest(made))
    return rounded


def classes(network, pixels):
    """Bool [H, W] of uint8 [H, W, 3]."""
    with torch.inference_mode():
        return NormalisedNetwork(network)(torch.from_numpy(pixels[None].copy()))[0, 0].numpy() > 0


def test_fewer_pixels_of_a_real_picture_change_their_class(root, trained):
    picture = np.asarray(Image.open(root / "bundle" / "docs" / "a1g6_test.jpg").convert("RGB"))
    height, width = (side // 32 * 32 for side in picture.shape[:2])
    pixels = picture[:height, :width]
    expected = classes(fold(trained), pixels)
    changed = [(classes(in_bfloat16(made(trained)), pixels) != expected).mean() for made in (fold, fold_for_bfloat16)]
    assert 0 < changed[1] < changed[0] / 2


def test_dice_of_real_regions_stays(data, trained):
    """At most 0.2 points of Dice may be lost."""
    networks = fold(trained), in_bfloat16(fold_for_bfloat16(trained))
    both, sizes = np.zeros(2), np.zeros(2)
    for path in sorted((data / "bcss" / "rgbs").iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        tumor = np.asarray(Image.open(data / "bcss" / "tumor_masks" / path.name)) > 0
        for y in range(0, pixels.shape[0] - 511, 1536):
            for x in range(0, pixels.shape[1] - 511, 1536):
                here = tumor[y : y + 512, x : x + 512]
                for index, network in enumerate(networks):
                    found = classes(network, pixels[y : y + 512, x : x + 512])
                    both[index] += (found & here).sum()
                    sizes[index] += found.sum() + here.sum()
    exact, rounded = 2 * both / sizes
    assert exact > 0.5
    assert abs(rounded - exact) <= 0.002
