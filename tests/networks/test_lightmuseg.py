import numpy as np
import pytest
import torch
from monai.networks.nets import FlexibleUNet
from torch import nn

from lightmuseg.networks import MSFFM, LightMuSeg


def build(**options):
    torch.manual_seed(0)
    return LightMuSeg(encoder_weights=None, **options)


def image(height=64, width=64, batch=2):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def count(module, trainable_only=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def train_steps(network, steps=2):
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        network(image()).square().mean().backward()
        optimizer.step()


def changed(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def copy_of_state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_parameter_counts_are_the_papers():
    assert count(build()) == 6_640_221
    assert count(build(deep_supervision=True)) == 6_664_712
    assert count(build(freeze_encoder=True), trainable_only=True) == 4_828_509
    assert count(build().encoder) == 1_811_712


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (96, 64)])
def test_logits_have_the_images_size(classes, height, width):
    network = build(out_channels=classes).eval()
    assert network(image(height, width)).shape == (2, classes, height, width)


@pytest.mark.parametrize("classes", [1, 5])
def test_deep_supervision_gives_four_outputs_in_training_only(classes):
    network = build(out_channels=classes, deep_supervision=True)
    x = image(64, 96)
    assert network.train()(x).shape == (2, 4, classes, 64, 96)
    assert network.eval()(x).shape == (2, classes, 64, 96)


def test_side_heads_do_not_change_the_networks_own_output():
    deep = build(deep_supervision=True)
    plain = build()
    plain.load_state_dict({k: v for k, v in deep.state_dict().items() if not k.startswith("side_heads.")})
    x = image()
    with torch.no_grad():
        torch.testing.assert_close(deep.train()(x)[:, 0], plain.train()(x))


@pytest.mark.parametrize(
    "options",
    [{}, {"deep_supervision": True}, {"msffm": False}, {"dropout": 0.3}, {"backbone": "vit"},
     {"backbone": "efficientnet_b0"}],
    ids=str,
)  # fmt: skip
def test_torchscript_equals_eager(options):
    network = build(**options)
    scripted = torch.jit.script(network)
    x = image(32, 64)
    for training in (True, False):
        network.train(training)
        scripted.train(training)
        with torch.no_grad():
            torch.manual_seed(5)
            eager = network(x)
            torch.manual_seed(5)
            torch.testing.assert_close(scripted(x), eager)


def test_frozen_encoder_keeps_parameters_and_statistics_while_the_decoder_learns():
    network = build(freeze_encoder=True).train()
    before = copy_of_state(network)
    train_steps(network)
    changes = changed(before, network)
    assert not {name for name in changes if name.startswith("encoder.")}
    assert "head.conv.weight" in changes
    assert "up.0.1.conv.weight" in changes
    assert "up.0.1.adn.N.running_mean" in changes


def test_frozen_encoder_is_frozen_before_the_first_call_of_train():
    network = build(freeze_encoder=True)
    before = copy_of_state(network.encoder)
    train_steps(network)
    assert not changed(before, network.encoder)


def test_encoder_learns_where_it_is_not_frozen():
    network = build().train()
    before = copy_of_state(network.encoder)
    train_steps(network)
    assert {"features.0.0.weight", "features.0.1.running_mean"} <= changed(before, network.encoder)


def test_without_msffm_the_skips_are_identities():
    network = build(msffm=False)
    assert [type(module) for module in network.msffm] == [nn.Identity] * 5
    with_msffm = build()
    assert [type(module) for module in with_msffm.msffm] == [MSFFM] * 5
    assert count(network) == count(with_msffm) - count(with_msffm.msffm)


@pytest.mark.parametrize(("height", "width"), [(64, 65), (100, 64), (16, 64)])
def test_size_that_is_no_multiple_of_32_is_refused(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width}"):
        build().eval()(image(height, width))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "mobilenet_v9"}, "mobilenet_v9"),
        ({"dropout": 1.0}, "1.0"),
        ({"dropout": -0.1}, "-0.1"),
        ({"out_channels": 0}, "out_channels=0"),
        ({"in_channels": 0}, "in_channels=0"),
    ],
    ids=str,
)
def test_bad_argument_is_refused_with_its_value(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_flexible_unet_takes_the_registered_encoder():
    network = FlexibleUNet(in_channels=3, out_channels=2, backbone="mobilenet_v2", pretrained=False).eval()
    assert count(network.encoder) == 1_811_712
    assert network(image()).shape == (2, 2, 64, 64)


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "vit", "efficientnet-b0", "resnet18"])
def test_other_backbones_run_and_train(backbone):
    network = build(backbone=backbone, out_channels=2).train()
    output = network(image(64, 96))
    assert output.shape == (2, 2, 64, 96)
    output.square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.encoder.parameters())


def test_other_number_of_image_channels():
    assert build(in_channels=4).eval()(torch.randn(1, 4, 32, 32)).shape == (1, 1, 32, 32)


def test_dropout_is_random_in_training_and_off_in_evaluation():
    network = build(dropout=0.5)
    x = image()
    with torch.no_grad():
        network.eval()
        assert torch.equal(network(x), network(x))
        for module in network.modules():
            if isinstance(module, nn.Dropout2d):
                module.train()
        assert not torch.equal(network(x), network(x))


def test_without_dropout_training_mode_is_not_random():
    network = build().train()
    x = image()
    with torch.no_grad():
        assert torch.equal(network(x), network(x))


def test_weights_fit_whatever_the_dropout():
    plain, dropping = build().eval(), build(dropout=0.4).eval()
    torch.manual_seed(9)
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.1)
    dropping.load_state_dict(plain.state_dict())
    x = image()
    with torch.no_grad():
        assert torch.equal(dropping(x), plain(x))


@pytest.mark.parametrize(
    "options", [{}, {"deep_supervision": True}, {"freeze_encoder": True}, {"backbone": "efficientnet_b0"}], ids=str
)
def test_gradients_reach_every_trainable_parameter(options):
    network = build(**options).train()
    network(image()).square().mean().backward()
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert not [name for name, p in trainable.items() if p.grad is None or not p.grad.isfinite().all()]
    # a bias in front of a batch norm has no gradient by construction
    assert not [name for name, p in trainable.items() if p.ndim > 1 and p.grad.abs().max() == 0]
    assert not [name for name, p in network.named_parameters() if not p.requires_grad and p.grad is not None]


def test_up_sampling_aligns_the_corners():
    rows, columns = np.linspace(0.0, 3.0, 4), np.linspace(0.0, 10.0, 6)
    ramp = torch.tensor(rows[:, None] + columns[None, :], dtype=torch.float32).expand(1, 320, 4, 6)
    doubled = build().up[0][0](ramp)[0, 7].numpy()
    expected = np.linspace(0.0, 3.0, 8)[:, None] + np.linspace(0.0, 10.0, 12)[None, :]
    np.testing.assert_allclose(doubled, expected, atol=1e-5)
