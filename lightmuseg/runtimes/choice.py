"""Which runtime runs a network, and the proof that it gives the same."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lightmuseg.errors import InputError, first_line

from .cache import weights_hash
from .parity import parity
from .runtime import Runtime
from .torch import TorchRuntime

# seconds that each candidate is timed by "auto", after one call that warms it up
TRIAL_S = 1.5


@dataclass(frozen=True)
class Request:
    """What a runtime is made of.

    Attributes:
        network: as it was trained, on the CPU in evaluation mode.
        tile_size: side of the tiles.
        batch_size: tiles at once.
        device: to run on.
        amp: mixed precision where the runtime has it.
        int8: folder of the network in INT8.
        weights: hash of those that the network was trained to.
    """

    network: nn.Module
    tile_size: int
    batch_size: int
    device: torch.device
    amp: bool
    int8: Path | None
    weights: str

    @cached_property
    def folded(self) -> nn.Module:
        """The network for float32 and float16."""
        from lightmuseg.networks import fold

        return fold(self.network)

    @cached_property
    def for_bfloat16(self) -> nn.Module:
        """The network for bfloat16."""
        from lightmuseg.networks import fold_for_bfloat16

        return fold_for_bfloat16(self.network)


def _torch(request: Request, compiled: bool = False) -> Runtime:
    in_bfloat16 = request.amp and request.device.type == "cpu"
    # a copy, since moving a module to a device moves it for all who hold it
    network = copy.deepcopy(request.for_bfloat16 if in_bfloat16 else request.folded)
    return TorchRuntime(network, request.tile_size, request.device, request.amp, compiled)


def _openvino(request: Request, precision: str) -> Runtime:
    from .openvino import openvino_runtime

    network = request.for_bfloat16 if precision == "bfloat16" else request.folded
    return openvino_runtime(network, request.tile_size, precision)


def _openvino_int8(request: Request) -> Runtime:
    from .int8 import load_quantized

    if request.int8 is None:
        raise InputError("--runtime openvino_int8: no model in INT8 is named; make one by 'lightmuseg quantize'.")
    return load_quantized(
        request.int8, request.weights, request.tile_size, getattr(request.network, "output_stride", None)
    )


def _onnx(request: Request) -> Runtime:
    from .onnx import onnx_runtime

    # a CPU takes one tile after the other, which stays in its caches
    batch_size = 1 if request.device.type == "cpu" else request.batch_size
    return onnx_runtime(request.folded, request.tile_size, batch_size, request.device)


def _tensorrt(request: Request) -> Runtime:
    from .tensorrt import tensorrt_runtime

    return tensorrt_runtime(request.folded, request.tile_size, request.batch_size, request.device)


@dataclass(frozen=True)
class Kind:
    """A way to run a network.

    Attributes:
        make: the runtime.
        devices: types of device that it runs on.
        package: that must be installed, with the extra that brings it.
        lossy: taken on request only.
        bfloat16: must be known to the processor.
    """

    make: Callable[[Request], Runtime]
    devices: tuple[str, ...]
    package: tuple[str, str] | None = None
    lossy: bool = False
    bfloat16: bool = False


KINDS = {
    "torch": Kind(_torch, ("cpu", "cuda")),
    "torch_compile": Kind(lambda request: _torch(request, True), ("cpu", "cuda")),
    "openvino": Kind(lambda request: _openvino(request, "float32"), ("cpu",), ("openvino", "openvino")),
    "openvino_bf16": Kind(
        lambda request: _openvino(request, "bfloat16"), ("cpu",), ("openvino", "openvino"), bfloat16=True
    ),
    "openvino_int8": Kind(_openvino_int8, ("cpu",), ("openvino", "openvino"), lossy=True),
    "onnx": Kind(_onnx, ("cpu", "cuda"), ("onnxruntime", "onnx")),
    "tensorrt": Kind(_tensorrt, ("cuda",), ("tensorrt", "tensorrt")),
}


def make_runtime(
    network: nn.Module,
    kind: str | None = None,
    tile_size: int = 512,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    amp: bool = False,
    int8: str | Path | None = None,
    sample: np.ndarray | None = None,
) -> Runtime:
    """The runtime of a trained network, proven on real pixels against eager float32 PyTorch.

    Args:
        network: as it was trained; it stays as it is.
        kind: one of :data:`KINDS`; "auto" for the fastest that passes; None for OpenVINO on a CPU where it is
            installed, else PyTorch.
        tile_size: side of the tiles, a multiple of 32.
        batch_size: tiles at once.
        device: to run on.
        amp: mixed precision where the runtime has it.
        int8: folder of the network in INT8, as 'lightmuseg quantize' makes it.
        sample: tiles to prove it on, uint8 [N, tile, tile, 3]; without them nothing is proven.

    Raises:
        InputError: for a kind that is not known, not installed or not for the device, or one that is not within
            tolerance; by None or "auto" it is left out with a warning.
    """
    device = torch.device(device)
    original = copy.deepcopy(network).cpu().eval()
    folder = Path(int8) if int8 else None
    request = Request(original, tile_size, batch_size, device, amp, folder, weights_hash(original))
    if kind not in (None, "auto"):
        require_runtime(kind, device)
    reference = None if sample is None or not len(sample) else TorchRuntime(original, tile_size)
    timed: dict[str, tuple[float, Runtime]] = {}
    for name, mixed in _candidates(kind, device, amp):
        try:
            runtime = KINDS[name].make(replace(request, amp=mixed))
            _prove(runtime, name, reference, sample)
        except Exception as error:  # each library has errors of its own
            if kind not in (None, "auto"):
                if isinstance(error, InputError):
                    raise
                raise InputError(f"--runtime {kind}: {first_line(error)}; give --runtime torch.") from error
            if name == "torch" and isinstance(error, InputError) and not mixed:
                raise
            reason = str(error) if isinstance(error, InputError) else f"--runtime {name}: {first_line(error)}"
            print(f"lightmuseg: warning: {reason} It is left out.", file=sys.stderr)
            continue
        if kind != "auto" or sample is None or not len(sample):
            return runtime
        timed[name if mixed == amp else f"{name} in float32"] = rate(runtime, sample, batch_size), runtime
    best = max(timed, key=lambda name: timed[name][0])
    rates = ", ".join(f"{name} {rate:.1f}" for name, (rate, _) in timed.items())
    print(f"--runtime auto: {best} is the fastest (tiles a second: {rates})", file=sys.stderr)
    return timed[best][1]


def require_device(device: torch.device | str) -> None:
    """Refuse a device on which nothing can be computed here.

    Raises:
        InputError: with those that there are.
    """
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # PyTorch has another for each kind of device
        count = torch.cuda.device_count()
        here = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        raise InputError(f"--device {device}: cannot compute here ({first_line(error)}); give {here}.") from error


def require_runtime(kind: str, device: torch.device | str) -> None:
    """Refuse a kind that is not known, not for the device or not installed.

    Raises:
        InputError: with what to do.
    """
    if kind not in KINDS:
        raise InputError(f"--runtime {kind}: is none of {', '.join(KINDS)}, auto.")
    device = torch.device(device)
    if device.type not in KINDS[kind].devices:
        known = " and ".join(KINDS[kind].devices)
        raise InputError(f"--runtime {kind}: runs on {known}, not on the device {device}; give --runtime auto.")
    missing = _missing(kind)
    if missing:
        package, extra = missing
        raise InputError(f"--runtime {kind}: {package} is not installed; pip install 'lightmuseg[{extra}]'.")
    if not _fits_processor(kind):
        raise InputError(f"--runtime {kind}: this processor computes nothing in bfloat16; give --runtime auto.")


def _missing(kind: str) -> tuple[str, str] | None:
    package = KINDS[kind].package
    return package if package and find_spec(package[0]) is None else None


def _fits_processor(kind: str) -> bool:
    if not KINDS[kind].bfloat16:
        return True
    from .openvino import knows_bfloat16

    return knows_bfloat16()


def _candidates(kind: str | None, device: torch.device, amp: bool) -> list[tuple[str, bool]]:
    """Names and whether in mixed precision, in the order in which they are tried."""
    if kind is not None and kind != "auto":
        return [(kind, amp)]
    wanted = ["openvino", "torch"] if kind is None else [name for name, one in KINDS.items() if not one.lossy]
    here = [n for n in wanted if device.type in KINDS[n].devices and not _missing(n) and _fits_processor(n)]
    # float32 by PyTorch is what remains where all others are refused
    return list(dict.fromkeys([*((name, amp) for name in here), ("torch", False)]))


def _prove(runtime: Any, name: str, reference: Runtime | None, sample: np.ndarray | None) -> None:
    if reference is None or sample is None:
        return
    runtime.parity = parity(runtime, reference, sample)
    if not runtime.parity.passes:
        raise InputError(f"--runtime {name}: is not the trained network: {runtime.parity}; give --runtime torch.")


def rate(runtime: Runtime, sample: np.ndarray, batch_size: int) -> float:
    """Tiles a second in batches."""
    batch = np.resize(sample, (batch_size, *sample.shape[1:]))
    runtime(batch)
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < TRIAL_S:
        runtime(batch)
        count += batch_size
    return count / seconds
