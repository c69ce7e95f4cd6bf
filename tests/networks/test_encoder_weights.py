import hashlib
import http.server
import logging
import re
import threading
from functools import partial

import pytest
import torch

from lightmuseg.errors import InputError
from lightmuseg.networks import EfficientNetB0Encoder, LightMuSeg, MobileNetV2Encoder, ViTEncoder
from lightmuseg.networks.encoder_weights import build_encoder
from lightmuseg.networks.weights import pretrained_part

OFFICIAL = {kind: kind.imagenet_url for kind in (MobileNetV2Encoder, EfficientNetB0Encoder, ViTEncoder)}


@pytest.fixture(autouse=True)
def offline_hub(tmp_path, monkeypatch):
    """An empty torch.hub folder and an address where nobody answers."""
    before = torch.hub.get_dir()
    hub = tmp_path / "hub"
    torch.hub.set_dir(str(hub))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(MobileNetV2Encoder, "imagenet_url", "http://127.0.0.1:9/mobilenet_v2-b0353104.pth")
    yield hub
    torch.hub.set_dir(before)


@pytest.fixture
def served(tmp_path):
    """A folder and the address under which its files are served."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def random_weights(seed=3):
    torch.manual_seed(seed)
    return MobileNetV2Encoder().state_dict()


def assert_equal_weights(module, weights):
    own = module.state_dict()
    assert own.keys() == weights.keys()
    assert not [name for name in own if not torch.equal(own[name], weights[name])]


def publish(served, monkeypatch, weights, name=None, encoder=MobileNetV2Encoder):
    folder, address = served
    torch.save(weights, folder / "unnamed.pth")
    digest = hashlib.sha256((folder / "unnamed.pth").read_bytes()).hexdigest()
    name = name or f"mobilenet_v2-{digest[:8]}.pth"
    (folder / "unnamed.pth").rename(folder / name)
    monkeypatch.setattr(encoder, "imagenet_url", f"{address}/{name}")
    return name


def test_auto_without_network_warns_and_starts_from_random_weights(caplog, offline_hub):
    with caplog.at_level(logging.WARNING):
        network = LightMuSeg(encoder_weights="auto")
    assert network.encoder.weights_source == "random"
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "lightmuseg" in r.name]
    assert len(warnings) == 1
    assert "RANDOM WEIGHTS" in warnings[0]
    assert "mobilenet_v2" in warnings[0]
    assert str(offline_hub / "checkpoints") in warnings[0]


def test_imagenet_without_network_is_an_os_error():
    with pytest.raises(OSError):
        build_encoder("mobilenet_v2", 3, "imagenet")


def test_no_weights_are_random_without_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        encoder = build_encoder("mobilenet_v2", 3, None)
    assert encoder.weights_source == "random"
    assert not [r for r in caplog.records if "lightmuseg" in r.name]


@pytest.mark.parametrize("weights", ["imagenet", "auto"])
def test_download_is_loaded_and_cached(served, monkeypatch, offline_hub, weights):
    expected = random_weights()
    name = publish(served, monkeypatch, expected)
    encoder = build_encoder("mobilenet_v2", 3, weights)
    assert_equal_weights(encoder, expected)
    assert encoder.weights_source == "ImageNet"
    assert [p.name for p in (offline_hub / "checkpoints").iterdir()] == [name]

    (served[0] / name).unlink()
    assert_equal_weights(build_encoder("mobilenet_v2", 3, weights), expected)


@pytest.mark.parametrize(("backbone", "kind"), [("efficientnet_b0", EfficientNetB0Encoder), ("vit", ViTEncoder)])
def test_download_is_loaded_into_the_pretrained_part(served, monkeypatch, backbone, kind):
    torch.manual_seed(3)
    expected = pretrained_part(kind()).state_dict()
    publish(served, monkeypatch, expected, encoder=kind)
    encoder = build_encoder(backbone, 3, "imagenet")
    assert_equal_weights(pretrained_part(encoder), expected)
    assert encoder.weights_source == "ImageNet"


@pytest.mark.parametrize("kind", [MobileNetV2Encoder, EfficientNetB0Encoder, ViTEncoder])
def test_official_file_has_its_hash_in_its_name(kind):
    assert re.fullmatch(r"https://.+-[0-9a-f]{8}\.pth", OFFICIAL[kind])


def test_download_with_another_hash_is_refused_and_not_kept(served, monkeypatch, offline_hub):
    publish(served, monkeypatch, random_weights(), name="mobilenet_v2-00000000.pth")
    with pytest.raises((OSError, RuntimeError), match="00000000"):
        build_encoder("mobilenet_v2", 3, "imagenet")
    assert not list((offline_hub / "checkpoints").iterdir())


def test_auto_does_not_use_a_download_with_another_hash(served, monkeypatch, caplog):
    publish(served, monkeypatch, random_weights(), name="mobilenet_v2-00000000.pth")
    encoder = build_encoder("mobilenet_v2", 3, "auto")
    assert encoder.weights_source == "random"
    assert "00000000" in caplog.text


def test_file_is_loaded_and_its_hash_is_its_source(tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(random_weights(), path)
    encoder = build_encoder("mobilenet_v2", 3, str(path))
    assert_equal_weights(encoder, random_weights())
    assert encoder.weights_source == f"mine.pth sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent.pth"):
        build_encoder("mobilenet_v2", 3, str(tmp_path / "absent.pth"))
