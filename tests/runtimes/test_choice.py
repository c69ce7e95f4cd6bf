"""Every runtime gives what eager PyTorch gives, or is refused."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg
from lightmuseg.networks.weights import load_weights
from lightmuseg.runtimes import KINDS, TorchRuntime, choice, make_runtime, require_runtime
from lightmuseg.runtimes import openvino as openvino_runtimes
from lightmuseg.runtimes.parity import Parity, class_map, parity

pytestmark = pytest.mark.runtimes
SIDE = 256
# compiling takes minutes
EXACT = ["torch", "openvino", "onnx", pytest.param("torch_compile", marks=pytest.mark.nightly)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "_hub_dir", str(tmp_path_factory.mktemp("torch")))
        yield


@pytest.fixture(scope="module")
def network(root):
    network = LightMuSeg(encoder_weights=None, output_stride=2).eval()
    load_weights(network, root / "bundle" / "models" / "model.pt")
    return network


def small_network(seed):
    """What is exported and compiled in a fraction of the seconds that the trained network takes."""
    torch.manual_seed(seed)
    convolution = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
    return torch.nn.Sequential(convolution, torch.nn.ReLU6(), torch.nn.Conv2d(8, 1, 1)).eval()


@pytest.fixture(scope="module")
def small():
    return small_network(0)


@pytest.fixture(scope="module")
def tiles(root):
    picture = np.asarray(Image.open(root / "bundle" / "docs" / "a1g6_test.jpg").convert("RGB"))
    corners = [(0, 0), (60, 100), (120, 40), (30, 200), (90, 10)]
    return np.stack([np.resize(picture[y : y + SIDE, x : x + SIDE], (SIDE, SIDE, 3)) for y, x in corners])


@pytest.mark.parametrize("kind", EXACT)
def test_logits_are_those_of_the_trained_network(kind, network, tiles):
    runtime = make_runtime(network, kind, SIDE, 2, sample=tiles)
    assert (runtime.tile_size, runtime.out_channels, runtime.output_stride) == (SIDE, 1, 2)
    assert runtime.parity.passes
    assert runtime.parity.tiles == len(tiles)
    with torch.no_grad():
        pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        expected = network((pixels - mean) / deviation).numpy()
    for count in (1, 2, 5):  # batches that fill the exported one, do not, or are more
        logits = runtime(tiles[:count])
        assert logits.dtype == np.float32
        assert np.abs(logits - expected[:count]).max() < 1e-4 * np.abs(expected).max()
    assert np.array_equal(runtime(tiles), runtime(tiles))
    first = runtime(tiles[:1])
    kept = first.copy()
    runtime(tiles[1:2])
    assert np.array_equal(first, kept)


def test_compiling_changes_no_logits(small, tiles):
    """The trained network, which takes minutes, is compiled in the nightly run."""
    runtime = make_runtime(small, "torch_compile", SIDE, 2, sample=tiles)
    assert runtime.describe()["runtime"] == "torch_compile"
    eager = TorchRuntime(small, SIDE)(tiles)
    assert np.abs(runtime(tiles) - eager).max() < 1e-4 * np.abs(eager).max()


def test_openvino_is_what_a_cpu_gets_where_it_is_installed(small, monkeypatch):
    assert make_runtime(small, None, SIDE).describe()["runtime"] == "openvino"
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert make_runtime(small, None, SIDE).describe()["runtime"] == "torch"


def test_an_export_is_made_once_for_its_weights(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    files = tmp_path / "lightmuseg"
    make_runtime(small, "openvino", SIDE)
    first = {path.name: path.stat().st_mtime_ns for path in files.iterdir() if path.suffix != ".lock"}
    make_runtime(small, "openvino", SIDE)
    assert {path.name: path.stat().st_mtime_ns for path in files.iterdir() if path.suffix != ".lock"} == first
    make_runtime(small_network(1), "openvino", SIDE)
    assert len(list(files.glob("*.xml"))) == 2


class Wrong(TorchRuntime):
    """A runtime whose logits are off by a share of the largest."""

    def __init__(self, network, tile_size, share):
        self.share = 0.0
        super().__init__(network, tile_size)
        self.share = share

    def __call__(self, tiles):
        logits = super().__call__(tiles)
        return logits + self.share * np.abs(logits).max()


@pytest.fixture
def without_compiling(monkeypatch):
    """Kinds to try but the one that takes minutes; it has tests of its own."""
    kinds = {name: kind for name, kind in KINDS.items() if name != "torch_compile"}
    monkeypatch.setattr(choice, "KINDS", kinds)


@pytest.fixture
def broken_openvino(monkeypatch):
    def make(request):
        return Wrong(request.network, request.tile_size, 0.02)

    monkeypatch.setitem(KINDS, "openvino", choice.Kind(make, ("cpu",)))


def test_a_runtime_that_differs_is_refused_with_the_figures(network, tiles, broken_openvino):
    with pytest.raises(InputError, match=r"--runtime openvino: .*differ by 0\.02 of the largest \(at most 0\.0001\)"):
        make_runtime(network, "openvino", SIDE, sample=tiles)


@pytest.mark.parametrize("kind", [None, "auto"])
def test_where_none_is_asked_for_one_that_differs_is_left_out_aloud(
    small, tiles, broken_openvino, without_compiling, kind, capsys
):
    runtime = make_runtime(small, kind, SIDE, sample=tiles)
    assert not isinstance(runtime, Wrong)
    assert runtime.parity.passes
    assert "warning: --runtime openvino: is not the trained network" in capsys.readouterr().err


def test_auto_takes_the_fastest_that_passes_and_says_so(small, tiles, monkeypatch, without_compiling, capsys):
    rates = {"torch": 3.0, "openvino": 5.0, "onnx": 6.0}
    monkeypatch.setattr(choice, "rate", lambda runtime, *rest: rates[runtime.describe()["runtime"]])
    assert make_runtime(small, "auto", SIDE, sample=tiles).describe()["runtime"] == "onnx"
    assert "--runtime auto: onnx is the fastest" in capsys.readouterr().err


def test_mixed_precision_that_differs_too_much_leaves_float32(network, tiles, monkeypatch, capsys):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    strict = parity(TorchRuntime(network, SIDE, amp=True), TorchRuntime(network, SIDE), tiles)
    runtime = make_runtime(network, None, SIDE, amp=True, sample=tiles)
    assert runtime.describe()["precision"] == ("bfloat16" if strict.passes else "float32")
    assert ("is left out" in capsys.readouterr().err) is not strict.passes


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cuda", "is none of torch, torch_compile, openvino"),
        ("tensorrt", "runs on cuda, not on the device cpu"),
        ("openvino_int8", "no model in INT8 is named"),
    ],
)
def test_a_runtime_that_cannot_be_is_refused(small, kind, said):
    with pytest.raises(InputError, match=said):
        make_runtime(small, kind, SIDE)


def test_a_runtime_whose_package_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tensorrt is not installed; pip install 'lightmuseg\[tensorrt\]'"):
        require_runtime("tensorrt", "cuda")


def test_bfloat16_is_refused_where_the_processor_has_none(small, tiles, monkeypatch, without_compiling, capsys):
    monkeypatch.setattr(openvino_runtimes, "knows_bfloat16", lambda: False)
    with pytest.raises(InputError, match="--runtime openvino_bf16: this processor computes nothing in bfloat16"):
        make_runtime(small, "openvino_bf16", SIDE)
    monkeypatch.setattr(choice, "rate", lambda runtime, *rest: 1.0)
    make_runtime(small, "auto", SIDE, sample=tiles)
    assert "openvino_bf16" not in capsys.readouterr().err


def test_figures_that_are_no_numbers_do_not_pass():
    assert Parity("float32", 1, 0.0, 0.0).passes
    assert not Parity("float32", 1, float("nan"), 0.0).passes
    assert not Parity("float32", 1, 0.0, 0.1).passes
    assert Parity("int8", 1, 0.9, 0.01).passes


def test_classes_are_the_sign_of_one_logit_or_the_largest_of_several():
    logits = np.float32([[[[-1, 2]]], [[[3, -4]]]])
    assert class_map(logits).tolist() == [[[0, 1]], [[1, 0]]]
    assert class_map(np.float32([[[[1.0]], [[3.0]], [[2.0]]]])).tolist() == [[[1]]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["torch", "torch_compile", "tensorrt"])
def test_on_a_gpu_in_float16(kind, network, tiles):
    runtime = make_runtime(network, kind, SIDE, 8, "cuda", amp=True, sample=tiles)
    assert runtime.parity.passes
    assert runtime.describe()["precision"] == "float16"


def test_nothing_is_reported_to_openvinos_makers(small):
    assert sys.modules["openvino_telemetry"] is None
    assert json.dumps(make_runtime(small, "openvino", SIDE).describe())
