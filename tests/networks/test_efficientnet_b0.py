import pytest
import torch
from monai.networks.nets.efficientnet import EfficientNetEncoder
from torch import nn

from lightmuseg.networks import EfficientNetB0Encoder, LightMuSeg
from lightmuseg.networks.weights import load_published


def randomise(model):
    """Random weights and statistics, the same for the same parameters."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def assert_close(maps, expected):
    assert [m.shape for m in maps] == [m.shape for m in expected]
    for ours, theirs in zip(maps, expected):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_maps_equal_monais_own_encoders():
    monais = randomise(EfficientNetEncoder("efficientnet-b0", pretrained=False))
    encoder = EfficientNetB0Encoder().eval()
    encoder.load_state_dict({k: v for k, v in monais.state_dict().items() if k in encoder.state_dict()})
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps, expected = encoder(x), monais(x)
    assert_close(maps, expected)
    assert [(m.shape[1], 64 // m.shape[2]) for m in maps] == [(16, 2), (24, 4), (40, 8), (112, 16), (320, 32)]


def test_published_weights_give_the_maps_of_another_implementation(tmp_path):
    encoders = pytest.importorskip("segmentation_models_pytorch.encoders")
    published = randomise(encoders.get_encoder("efficientnet-b0", weights=None))
    classifier = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save({**published.state_dict(), **classifier}, tmp_path / "efficientnet-b0.pth")
    encoder = EfficientNetB0Encoder().eval()
    load_published(encoder, tmp_path / "efficientnet-b0.pth")
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        maps, expected = encoder(x), published(x)
    # that one takes its maps of strides 2 and 16 after other blocks
    assert_close([maps[1], maps[2], maps[4]], [expected[2], expected[3], expected[5]])


def test_parameters_are_the_papers_without_the_classifier():
    head = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert sum(p.numel() for p in EfficientNetB0Encoder().parameters()) == 5_288_548 - head
    assert (
        sum(p.numel() for p in LightMuSeg(backbone="efficientnet_b0", encoder_weights=None).parameters()) == 8_648_567
    )


def test_three_spatial_dimensions_are_refused():
    with pytest.raises(ValueError, match="spatial_dims=3"):
        EfficientNetB0Encoder(spatial_dims=3)


def test_imagenet_weights_for_other_than_three_channels_are_refused():
    with pytest.raises(ValueError, match="in_channels=4"):
        EfficientNetB0Encoder(in_channels=4, pretrained=True)
