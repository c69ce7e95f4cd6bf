import logging
import pickle

import pytest
import torch

from lightmuseg.errors import InputError
from lightmuseg.networks import MobileNetV2Encoder
from lightmuseg.networks.weights import load_published, read_state_dict


def random_weights(seed=3):
    torch.manual_seed(seed)
    return MobileNetV2Encoder().state_dict()


def assert_equal_weights(module, weights):
    own = module.state_dict()
    assert own.keys() == weights.keys()
    assert not [name for name in own if not torch.equal(own[name], weights[name])]


def test_weights_under_the_key_model_are_read_as_if_alone(tmp_path):
    torch.save({"model": random_weights(), "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save(random_weights(), tmp_path / "alone.pth")
    wrapped, alone = read_state_dict(tmp_path / "wrapped.pth"), read_state_dict(tmp_path / "alone.pth")
    assert wrapped.keys() == alone.keys()
    assert all(torch.equal(wrapped[name], alone[name]) for name in alone)


def test_classifier_is_left_out_silently(tmp_path, caplog):
    extra = {"classifier.1.weight": torch.ones(1000, 8), "features.18.0.weight": torch.ones(1280, 320, 1, 1)}
    torch.save({**random_weights(), **extra}, tmp_path / "full.pth")
    encoder = MobileNetV2Encoder()
    with caplog.at_level(logging.DEBUG):
        load_published(encoder, tmp_path / "full.pth")
    assert_equal_weights(encoder, random_weights())
    assert not caplog.records


def test_file_from_before_batch_counts_loads(tmp_path):
    old = {name: v for name, v in random_weights().items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    encoder = MobileNetV2Encoder()
    load_published(encoder, tmp_path / "old.pth")
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
        load_published(encoder, tmp_path / "other.pth")
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
        load_published(MobileNetV2Encoder(), tmp_path / "resnet.pth")
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
