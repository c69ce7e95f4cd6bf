import hashlib
import http.server
import logging
import pickle
import threading
from functools import partial

import pytest
import torch

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg, MobileNetV2Encoder
from lightmuseg.networks.encoder_weights import build_encoder, load_encoder_weights, read_state_dict


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


def publish(served, monkeypatch, weights, name=None):
    folder, address = served
    torch.save(weights, folder / "unnamed.pth")
    digest = hashlib.sha256((folder / "unnamed.pth").read_bytes()).hexdigest()
    name = name or f"mobilenet_v2-{digest[:8]}.pth"
    (folder / "unnamed.pth").rename(folder / name)
    monkeypatch.setattr(MobileNetV2Encoder, "imagenet_url", f"{address}/{name}")
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


def test_classifier_is_left_out_silently(tmp_path, caplog):
    extra = {"classifier.1.weight": torch.ones(1000, 8), "features.18.0.weight": torch.ones(1280, 320, 1, 1)}
    torch.save({**random_weights(), **extra}, tmp_path / "full.pth")
    encoder = MobileNetV2Encoder()
    with caplog.at_level(logging.DEBUG):
        load_encoder_weights(encoder, tmp_path / "full.pth")
    assert_equal_weights(encoder, random_weights())
    assert not caplog.records


def test_file_from_before_batch_counts_loads(tmp_path):
    old = {name: v for name, v in random_weights().items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    encoder = MobileNetV2Encoder()
    load_encoder_weights(encoder, tmp_path / "old.pth")
    assert_equal_weights(encoder, random_weights())


def test_other_architecture_is_refused_by_the_first_differences(tmp_path):
    weights = random_weights()
    del weights["features.0.0.weight"]
    weights["layer1.weight"] = torch.zeros(2)
    weights["features.17.conv.2.weight"] = torch.zeros(7, 960, 1, 1)
    torch.save(weights, tmp_path / "other.pth")
    encoder = MobileNetV2Encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_encoder_weights(encoder, tmp_path / "other.pth")
    for part in (
        "other.pth",
        "features.0.0.weight is missing",
        "layer1.weight is not known",
        "features.17.conv.2.weight is (7, 960, 1, 1), not (320, 960, 1, 1)",
    ):
        assert part in str(error.value)
    assert_equal_weights(encoder, before)


def test_many_differences_are_three_and_a_count(tmp_path):
    torch.save({f"layer{n}": torch.zeros(1) for n in range(4)}, tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="features.0.0.weight is missing.*and [0-9]+ more") as error:
        load_encoder_weights(MobileNetV2Encoder(), tmp_path / "resnet.pth")
    parameters = [k for k in MobileNetV2Encoder().state_dict() if not k.endswith("num_batches_tracked")]
    assert f"and {len(parameters) + 4 - 3} more" in str(error.value)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickled_objects_are_refused_and_not_run(tmp_path, save):
    trace, path = tmp_path / "executed", tmp_path / "evil.pth"
    save({"features.0.0.weight": Malicious(trace)}, path)
    with pytest.raises(InputError, match="evil.pth"):
        read_state_dict(path)
    assert not trace.exists()


@pytest.mark.parametrize("length", [0, 1, 100, 5000])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file_is_refused(tmp_path, length, zipped):
    path = tmp_path / "cut.pth"
    torch.save({"a": torch.ones(4000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="cut.pth"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content", [b"hello world\n", b"<!DOCTYPE html><html>404</html>", bytes(1000)], ids=["text", "page", "zeros"]
)
def test_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "text.pth").write_bytes(content)
    with pytest.raises(InputError, match="text.pth"):
        read_state_dict(tmp_path / "text.pth")


@pytest.mark.parametrize(
    "content", [[torch.ones(1)], {"epoch": 3}, torch.ones(2), {"network": {"a": torch.ones(1)}}], ids=str
)
def test_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "no.pth")
    with pytest.raises(InputError, match="no.pth: holds no state dict"):
        read_state_dict(tmp_path / "no.pth")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent.pth"):
        build_encoder("mobilenet_v2", 3, str(tmp_path / "absent.pth"))
