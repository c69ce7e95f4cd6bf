"""Every runtime gives what eager PyTorch gives, or is refused."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg
from lightmuseg.networks.weights import load_weights
from lightmuseg.runtimes import KINDS, RuntimeInfo, choice, kind_of, make_runtime, require_runtime, torch_runtime
from lightmuseg.runtimes import openvino as openvino_runtimes
from lightmuseg.runtimes.parity import TOLERANCES, Parity, changed_share

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
    assert runtime.info.kind == "torch_compile"
    eager = torch_runtime(small, SIDE)(tiles)
    assert np.abs(runtime(tiles) - eager).max() < 1e-4 * np.abs(eager).max()


@pytest.mark.parametrize(
    ("has_bfloat16", "most", "shown", "taken", "why"),
    [
        (True, (1.0, 1.0), True, ("openvino", "bfloat16"), "can be used here"),
        (True, (0.0, 0.0), True, ("openvino", "float32"), "left out were openvino_bf16: is not the trained network"),
        (False, (1.0, 1.0), True, ("openvino", "float32"), "openvino_bf16: this processor computes nothing in bfloat"),
        (True, (1.0, 1.0), False, ("openvino", "float32"), "openvino_bf16: nothing with structure"),
        (True, (1.0, 1.0), "glass", ("openvino", "float32"), "openvino_bf16: nothing with structure"),
    ],
    ids=["proven", "refused", "another processor", "nothing read", "glass alone"],
)
def test_a_cpu_gets_bfloat16_where_it_has_it_and_it_is_proven(
    small, tiles, monkeypatch, has_bfloat16, most, shown, taken, why
):
    monkeypatch.setattr(openvino_runtimes, "knows_bfloat16", lambda: has_bfloat16)
    monkeypatch.setitem(TOLERANCES, "bfloat16", most)
    glass = np.random.default_rng(0).normal(240, 2, tiles.shape).astype(np.uint8)
    runtime = make_runtime(small, None, SIDE, sample={True: tiles, False: None, "glass": glass}[shown])
    assert (runtime.info.kind, runtime.info.precision) == taken
    assert runtime.choice.startswith("the first of openvino_bf16, openvino, torch")
    assert why in runtime.choice


def test_torch_is_what_a_cpu_gets_without_openvino(small, monkeypatch):
    assert make_runtime(small, None, SIDE).info.kind == "openvino"
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    runtime = make_runtime(small, None, SIDE)
    assert runtime.info.kind == "torch"
    assert "openvino: openvino is not installed; pip install" in runtime.choice


def test_an_openvino_that_does_not_load_leaves_torch(small, tiles, monkeypatch):
    def fail():
        raise ImportError("libopenvino.so: cannot open shared object file")

    monkeypatch.setattr(openvino_runtimes, "knows_bfloat16", fail)
    monkeypatch.setattr(openvino_runtimes, "openvino_runtime", lambda *words: fail())
    runtime = make_runtime(small, None, SIDE, sample=tiles)
    assert runtime.info.kind == "torch"
    assert "libopenvino.so" in runtime.choice


def test_the_reason_for_one_that_was_not_timed(small, monkeypatch, without_compiling):
    assert make_runtime(small, "torch", SIDE).choice == "it was asked for"
    assert make_runtime(small, "auto", SIDE).choice == "nothing could be read to time any on"


@pytest.mark.parametrize("kind", ["torch", "openvino", "openvino_bf16"])
def test_a_record_leads_back_to_the_kind(small, monkeypatch, kind):
    monkeypatch.setattr(openvino_runtimes, "knows_bfloat16", lambda: True)
    assert kind_of(make_runtime(small, kind, SIDE).info.plain()) == kind
    assert kind_of({"runtime": "openvino", "precision": "int8"}) is None
    assert kind_of({}) is None


def test_an_export_is_made_once_for_its_weights(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    files = tmp_path / "lightmuseg"
    make_runtime(small, "openvino", SIDE)
    first = {path.name: path.stat().st_mtime_ns for path in files.iterdir() if path.suffix != ".lock"}
    make_runtime(small, "openvino", SIDE)
    assert {path.name: path.stat().st_mtime_ns for path in files.iterdir() if path.suffix != ".lock"} == first
    make_runtime(small_network(1), "openvino", SIDE)
    assert len(list(files.glob("*.xml"))) == 2


@pytest.fixture
def without_compiling(monkeypatch):
    """Kinds to try but the one that takes minutes; it has tests of its own."""
    kinds = {name: kind for name, kind in KINDS.items() if name != "torch_compile"}
    monkeypatch.setattr(choice, "KINDS", kinds)


@pytest.fixture
def broken_openvino(monkeypatch):
    """Logits of OpenVINO are off by a share of the largest."""

    def make(kind, network, tile_size, *rest):
        runtime = torch_runtime(network, tile_size)
        if not kind.startswith("openvino"):
            return runtime

        def wrong(tiles):
            logits = runtime(tiles)
            return logits + 0.02 * np.abs(logits).max()

        return replace(runtime, call=wrong, info=replace(runtime.info, kind="openvino"))

    monkeypatch.setattr(choice, "make", make)


def test_a_runtime_that_differs_is_refused_with_the_figures(network, tiles, broken_openvino):
    with pytest.raises(InputError, match=r"--runtime openvino: .*differ by 0\.02 of the largest \(at most 0\.0001\)"):
        make_runtime(network, "openvino", SIDE, sample=tiles)


@pytest.mark.parametrize("kind", [None, "auto"])
def test_where_none_is_asked_for_one_that_differs_is_left_out_aloud(
    small, tiles, broken_openvino, without_compiling, kind, caplog
):
    runtime = make_runtime(small, kind, SIDE, sample=tiles)
    assert runtime.info.kind == "torch"
    assert runtime.parity.passes
    assert "--runtime openvino: is not the trained network" in caplog.text


def test_auto_takes_the_fastest_that_passes_and_says_so(small, tiles, monkeypatch, without_compiling, caplog):
    caplog.set_level("INFO", "lightmuseg")
    rates = {"torch": 3.0, "openvino": 5.0, "onnx": 6.0}
    monkeypatch.setattr(choice, "rate", lambda runtime, *rest: rates[runtime.info.kind])
    assert make_runtime(small, "auto", SIDE, sample=tiles).info.kind == "onnx"
    assert "--runtime auto: onnx is the fastest" in caplog.text


@pytest.mark.parametrize(("most", "precision"), [((1.0, 1.0), "bfloat16"), ((0.0, 0.0), "float32")])
def test_mixed_precision_that_differs_too_much_leaves_float32(small, tiles, monkeypatch, caplog, most, precision):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    monkeypatch.setitem(TOLERANCES, "bfloat16", most)
    runtime = make_runtime(small, None, SIDE, amp=True, sample=tiles)
    assert runtime.info.precision == precision
    assert ("is left out" in caplog.text) is (precision == "float32")


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


def test_bfloat16_is_refused_where_the_processor_has_none(small, tiles, monkeypatch, without_compiling, caplog):
    monkeypatch.setattr(openvino_runtimes, "knows_bfloat16", lambda: False)
    with pytest.raises(InputError, match="--runtime openvino_bf16: this processor computes nothing in bfloat16"):
        make_runtime(small, "openvino_bf16", SIDE)
    monkeypatch.setattr(choice, "rate", lambda runtime, *rest: 1.0)
    make_runtime(small, "auto", SIDE, sample=tiles)
    assert "openvino_bf16" not in caplog.text


def test_figures_that_are_no_numbers_do_not_pass():
    assert Parity("float32", 1, 0.0, 0.0).passes
    assert not Parity("float32", 1, float("nan"), 0.0).passes
    assert not Parity("float32", 1, 0.0, 0.1).passes
    assert Parity("int8", 1, 0.9, 0.01).passes


def test_the_changed_share_is_of_signs_or_of_largest_logits():
    given, expected = np.float32([[[[-1, 2]]], [[[3, -4]]]]), np.float32([[[[-2, 9]]], [[[-3, -1]]]])
    assert changed_share(given, expected) == 1 / 4
    three = np.float32([[[[1.0]], [[3.0]], [[2.0]]]])
    assert (changed_share(three, 2 * three), changed_share(three, -three)) == (0, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["torch", "torch_compile", "tensorrt"])
def test_on_a_gpu_in_float16(kind, network, tiles):
    runtime = make_runtime(network, kind, SIDE, 8, "cuda", amp=True, sample=tiles)
    assert runtime.parity.passes
    assert runtime.info.precision == "float16"


def test_openvino_and_nncf_report_nothing_to_their_makers(small):
    make_runtime(small, "openvino", SIDE)
    assert sys.modules["openvino_telemetry"] is None
    from openvino.tools.ovc import telemetry_stub, telemetry_utils

    assert telemetry_utils.tm is telemetry_stub


def test_a_record_says_how_it_was_made(small):
    plain = make_runtime(small, "openvino", SIDE).info.plain()
    assert json.loads(json.dumps(plain)) == {
        "runtime": "openvino", "device": "cpu", "precision": "float32", "threads": torch.get_num_threads()
    }  # fmt: skip
    assert RuntimeInfo("tensorrt", "GPU", "float16").plain() == {
        "runtime": "tensorrt", "device": "GPU", "precision": "float16"
    }  # fmt: skip
