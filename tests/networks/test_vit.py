import encoder_references as references
import numpy as np
import pytest
import torch
from torch import nn

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg, ViTEncoder
from lightmuseg.networks.encoder_weights import build_encoder
from lightmuseg.networks.weights import load_published


@pytest.fixture(scope="module")
def reference():
    """timm's DeiT-small, every parameter random."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("deit_small_patch16_224", pretrained=False).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.06)
    return model


@pytest.fixture(scope="module")
def published(reference, tmp_path_factory):
    """Its weights as a file in DeiT's form, classifier and all."""
    path = tmp_path_factory.mktemp("deit") / "deit_small.pth"
    torch.save({"model": reference.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def encoder(published):
    return build_encoder("vit", 3, str(published)).eval()


def test_taps_equal_timms_hidden_states(reference, encoder):
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        taps = encoder.trunk(x)
        expected = reference.get_intermediate_layers(x, n=[2, 5, 8, 11], reshape=True)
        normalised = reference.get_intermediate_layers(x, n=1, reshape=True, norm=True)
    assert len(taps) == 4
    for ours, theirs in zip(taps, [*expected[:3], normalised[0]]):
        assert ours.shape == (2, 384, 14, 14)
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize(("rows", "columns"), references.GRIDS)
def test_positions_are_stretched_as_by_hugging_face(rows, columns):
    trunk = ViTEncoder().trunk
    with torch.no_grad(), np.load(references.PATH) as kept:
        trunk.pos_embed.copy_(references.positions())
        ours = references.kept(trunk.positions(rows, columns))
        np.testing.assert_allclose(ours, kept[f"vit {rows}x{columns}"], rtol=0, atol=1e-6)


def test_rows_and_columns_are_not_swapped(encoder):
    x = torch.zeros(1, 3, 64, 128)
    x[..., 96:] = 5.0
    with torch.no_grad():
        difference = (encoder.trunk(x)[0] - encoder.trunk(torch.zeros_like(x))[0]).abs().mean(1)[0]
    assert difference.shape == (4, 8)
    assert difference[:, 6:].min() > difference[:, :6].max()


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 32)])
def test_maps_have_mobilenets_channels_and_strides(encoder, height, width):
    with torch.no_grad():
        shapes = [tuple(m.shape) for m in encoder(torch.randn(1, 3, height, width))]
    strides = (2, 4, 8, 16, 32)
    assert shapes == [(1, c, height // s, width // s) for c, s in zip((16, 24, 32, 96, 320), strides)]


def test_parameters_are_deit_smalls_and_the_network_has_more_than_27_million(reference):
    trunk = sum(p.numel() for p in ViTEncoder().trunk.parameters())
    assert trunk == sum(p.numel() for name, p in reference.named_parameters() if not name.startswith("head."))
    network = LightMuSeg(backbone="vit", encoder_weights=None)
    assert 27_000_000 < sum(p.numel() for p in network.parameters()) < 28_000_000


def test_published_file_fills_the_trunk_alone(reference, published):
    encoder = ViTEncoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    load_published(encoder, published)
    theirs = reference.state_dict()
    for name, value in encoder.state_dict().items():
        expected = theirs[name.removeprefix("trunk.")] if name.startswith("trunk.") else before[name]
        assert torch.equal(value, expected), name


def test_file_of_another_transformer_is_refused(tmp_path, reference):
    weights = {name: value for name, value in reference.state_dict().items() if not name.startswith("blocks.11.")}
    torch.save({"model": weights}, tmp_path / "shallow.pth")
    with pytest.raises(InputError, match=r"shallow.pth.*blocks\.11\.norm1\.weight is missing"):
        load_published(ViTEncoder(), tmp_path / "shallow.pth")


def test_frozen_trunk_keeps_its_weights_while_adapters_and_decoder_learn():
    torch.manual_seed(0)
    network = LightMuSeg(backbone="vit", encoder_weights=None, freeze_encoder=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name.startswith("encoder.trunk.")}
    for name in ("encoder.stem.conv.weight", "encoder.stem.adn.N.running_mean", "encoder.adapters.3.1.conv.weight",
                 "head.conv.weight"):  # fmt: skip
        assert name in changed


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = LightMuSeg(backbone="vit", encoder_weights=None).train()
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [name for name, p in network.encoder.named_parameters() if p.grad.abs().max() == 0]


def test_half_precision_gives_finite_maps(encoder):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = encoder(torch.randn(1, 3, 64, 64))
    assert all(m.isfinite().all() for m in maps)


def test_three_spatial_dimensions_are_refused():
    with pytest.raises(ValueError, match="spatial_dims=3"):
        ViTEncoder(spatial_dims=3)


def test_imagenet_weights_for_other_than_three_channels_are_refused():
    with pytest.raises(ValueError, match="in_channels=4"):
        ViTEncoder(in_channels=4, pretrained=True)
