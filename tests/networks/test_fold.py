"""A folded network has fewer layers and gives the same."""

import copy

import pytest
import torch
from random_networks import by_chance, difference
from torch import nn

from lightmuseg.networks import MSFFM, LightMuSeg, UNet, fold

VARIANTS = {
    "V1": {"freeze_encoder": True},
    "V2": {},
    "V3": {"deep_supervision": True},
    "five classes": {"out_channels": 5},
    "half the size": {"output_stride": 2},
    "with dropout": {"dropout": 0.3},
    "without MSFFM": {"msffm": False},
    "efficientnet_b0": {"backbone": "efficientnet_b0"},
    "vit": {"backbone": "vit"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(64, 96), (160, 128)])
def test_folded_network_gives_the_same(variant, size):
    torch.manual_seed(0)
    network = by_chance(LightMuSeg(encoder_weights=None, **VARIANTS[variant]), seed=1)
    folded = fold(network)
    assert difference(network, folded, torch.randn(2, 3, *size)) < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize("channels", [4, 24])
def test_three_branches_and_their_fusion_are_one_convolution(channels):
    torch.manual_seed(0)
    module = MSFFM(channels).eval()
    folded = fold(module)
    assert [tuple(p.shape) for p in folded.branches.parameters()] == [(channels, channels, 5, 5), (channels,)]
    assert difference(module, folded, torch.randn(2, channels, 7, 9)) < 1e-6


def test_network_itself_stays_as_it_is():
    torch.manual_seed(0)
    network = by_chance(LightMuSeg(encoder_weights=None, deep_supervision=True), seed=2).train()
    before = copy.deepcopy(network.state_dict())
    image = torch.randn(2, 3, 64, 64)
    fold(network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network(image).shape == (2, 4, 1, 64, 64)


def test_real_weights_give_the_same(root):
    network = LightMuSeg(encoder_weights=None)
    network.load_state_dict(torch.load(root / "bundle" / "models" / "model.pt", weights_only=True))
    network = network.float().eval()
    assert difference(network, fold(network), torch.randn(1, 3, 512, 512)) < 1e-5


def test_precision_is_kept():
    assert next(fold(LightMuSeg(encoder_weights=None).half().eval()).parameters()).dtype == torch.float16


def test_baseline_is_folded_too():
    network = by_chance(UNet(backbone="resnet34", encoder_weights=None), seed=3)
    assert difference(network, fold(network), torch.randn(1, 3, 64, 64)) < 1e-5


def test_batch_norm_without_a_convolution_stays():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(0.5)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), norm).eval()
    assert difference(network, fold(network), torch.randn(1, 3, 64, 64)) < 1e-6


def test_batch_norm_with_an_activation_of_its_own_stays():
    """Such are those of timm's encoders."""
    network = by_chance(UNet(backbone="timm-mobilenetv3_large_100", encoder_weights=None), seed=3).double()
    assert difference(network, fold(network), torch.randn(1, 3, 64, 64).double()) < 1e-9


def test_first_convolution_may_have_groups():
    network = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)).eval()
    assert difference(network, fold(network), torch.randn(1, 3, 64, 64)) < 1e-5
