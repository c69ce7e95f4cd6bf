"""Which runtime runs a network, and the proof that it gives the same."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lightmuseg.errors import InputError, first_line
from lightmuseg.networks import fold

from .bfloat16 import fold_for_bfloat16
from .cache import weights_hash
from .runtime import Runtime
from .torch import torch_runtime

logger = logging.getLogger(__name__)

# seconds that each candidate is timed by "auto", after one call that warms it up
TRIAL_S = 1.5
# the kinds that are OpenVINO's own conversion: precision, and what is converted of a network
CONVERTED = {"openvino": ("float32", fold), "openvino_bf16": ("bfloat16", fold_for_bfloat16)}
# what is tried where no kind is asked for, the fastest first, as docs/performance.md has it
BY_DEFAULT = ("openvino_bf16", "openvino", "torch")
# Grey values, as standard deviation, that a tile has on which bfloat16 is proven where nobody asked for it: glass with
# its noise has 1 to 3, tissue 20 and more.
LEAST_DEVIATION = 8.0


@dataclass(frozen=True)
class Kind:
    """A way to run a network, which :func:`make` knows how to make.

    Attributes:
        devices: types of device that it runs on.
        package: that must be installed.
        extra: of this package that brings it.
        lossy: taken on request only.
    """

    devices: tuple[str, ...]
    package: str | None = None
    extra: str | None = None
    lossy: bool = False


KINDS = {
    "torch": Kind(("cpu", "cuda")),
    "torch_compile": Kind(("cpu", "cuda")),
    "openvino": Kind(("cpu",), "openvino", "openvino"),
    "openvino_bf16": Kind(("cpu",), "openvino", "openvino"),
    "openvino_int8": Kind(("cpu",), "openvino", "openvino", lossy=True),
    "onnx": Kind(("cpu", "cuda"), "onnxruntime", "onnx"),
    "tensorrt": Kind(("cuda",), "tensorrt", "tensorrt"),
}


def make(
    kind: str, network: nn.Module, tile_size: int, batch_size: int, device: torch.device, amp: bool, int8: Path | None
) -> Runtime:
    """The runtime of a kind, not compared with anything; its library is loaded only here.

    Args:
        kind: one of :data:`KINDS`.
        network: as it was trained, on the CPU in evaluation mode.
        tile_size, batch_size, device, amp, int8: as of :func:`make_runtime`.
    """
    if kind == "openvino_int8":
        from .int8 import load_quantized

        if int8 is None:
            raise InputError("--runtime openvino_int8: no model in INT8 is named; make one by 'lightmuseg quantize'.")
        return load_quantized(int8, weights_hash(network), tile_size, getattr(network, "output_stride", None))
    if kind in CONVERTED:
        from .openvino import openvino_runtime

        return openvino_runtime(network, tile_size, *CONVERTED[kind])
    if kind in ("torch", "torch_compile"):
        in_bfloat16 = amp and device.type == "cpu"
        folded = fold_for_bfloat16(network) if in_bfloat16 else fold(network)
        return torch_runtime(folded, tile_size, device, amp, compiled=kind == "torch_compile")
    folded = fold(network)
    if kind == "onnx":
        from .onnx import onnx_runtime

        return onnx_runtime(folded, tile_size, batch_size, device)
    if kind == "tensorrt":
        from .tensorrt import tensorrt_runtime

        return tensorrt_runtime(folded, tile_size, batch_size, device)
    raise ValueError(f"{kind} has no maker")


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
    """The runtime of a trained network, with its parity with eager float32 PyTorch on real pixels.

    Args:
        network: as it was trained; it stays as it is.
        kind: one of :data:`KINDS`; "auto" for the fastest that passes; None for the first of :data:`BY_DEFAULT` that
            can run here and passes, bfloat16 only where there is structure to prove it on.
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
    named = kind not in (None, "auto")
    if named:
        require_runtime(kind, device)
    tiles = sample if sample is not None and len(sample) else None
    reference = None if tiles is None else torch_runtime(original, tile_size)
    timed: dict[str, tuple[float, Runtime]] = {}
    structured = tiles is not None and max(float(tile.std()) for tile in tiles) >= LEAST_DEVIATION
    candidates, left_out = _candidates(kind, device, amp, structured)
    for name, mixed in candidates:
        try:
            runtime = make(name, original, tile_size, batch_size, device, mixed, Path(int8) if int8 else None)
            if tiles is not None:
                runtime = _proven(runtime, name, reference, tiles)
        except Exception as error:  # each library has errors of its own
            fault = str(error) if isinstance(error, InputError) else f"--runtime {name}: {first_line(error)}"
            if named or (name, mixed) == ("torch", False):
                remedy = "" if isinstance(error, InputError) else "; give --runtime torch."
                raise InputError(f"{fault}{remedy}") from error
            logger.warning("%s It is left out.", fault)
            left_out.append(fault.removeprefix("--runtime "))
            continue
        if kind != "auto" or tiles is None:
            return replace(runtime, choice=_reason(kind, left_out))
        timed[name if mixed == amp else f"{name} in float32"] = rate(runtime, tiles, batch_size), runtime
    best = max(timed, key=lambda name: timed[name][0])
    rates = ", ".join(f"{name} {rate:.1f}" for name, (rate, _) in timed.items())
    reason = f"{best} is the fastest (tiles a second: {rates})"
    logger.info("--runtime auto: %s", reason)
    return replace(timed[best][1], choice=reason)


def _reason(kind: str | None, left_out: list[str]) -> str:
    """Why a runtime was taken that was not timed."""
    if kind is not None:
        return "nothing could be read to time any on" if kind == "auto" else "it was asked for"
    others = f"; left out were {' '.join(left_out)}" if left_out else ""
    return f"the first of {', '.join(BY_DEFAULT)} that can be used here{others}"


def _proven(runtime: Runtime, name: str, reference: Runtime, tiles: np.ndarray) -> Runtime:
    compared = runtime.compared(reference, tiles)
    if not compared.parity.passes:
        raise InputError(f"--runtime {name}: is not the trained network: {compared.parity}; give --runtime torch.")
    return compared


def _candidates(
    kind: str | None, device: torch.device, amp: bool, structured: bool
) -> tuple[list[tuple[str, bool]], list[str]]:
    """Names and whether in mixed precision, in the order in which they are tried; and why others are not."""
    if kind is not None and kind != "auto":
        return [(kind, amp)], []
    wanted = BY_DEFAULT if kind is None else [name for name, one in KINDS.items() if not one.lossy]
    obstacles = {name: obstacle(name, device) for name in wanted}
    if not structured and kind is None:
        obstacles["openvino_bf16"] = "nothing with structure could be read to prove it on."
    # float32 by PyTorch is what remains where all others are refused
    usable = dict.fromkeys([*((name, amp) for name in wanted if obstacles[name] is None), ("torch", False)])
    return list(usable), [f"{name}: {reason}" for name, reason in obstacles.items() if reason]


def kind_of(record: Mapping[str, Any]) -> str | None:
    """The kind of :data:`BY_DEFAULT` that a record of results names; None where it names none of them."""
    runtime, precision = record.get("runtime"), record.get("precision")
    if runtime != "openvino":
        return "torch" if runtime == "torch" else None
    return next((kind for kind, (known, _) in CONVERTED.items() if known == precision), None)


def rate(runtime: Runtime, tiles: np.ndarray, batch_size: int) -> float:
    """Tiles a second in batches."""
    batch = np.resize(tiles, (batch_size, *tiles.shape[1:]))
    runtime(batch)
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < TRIAL_S:
        runtime(batch)
        count += batch_size
    return count / seconds


def obstacle(kind: str, device: torch.device | str) -> str | None:
    """Why a kind cannot run on a device of this machine, and what to do; None where it can."""
    known, device = KINDS[kind], torch.device(device)
    if device.type not in known.devices:
        return f"runs on {' and '.join(known.devices)}, not on the device {device}; give --runtime auto."
    if known.package and find_spec(known.package) is None:
        return f"{known.package} is not installed; pip install 'lightmuseg[{known.extra}]'."
    if kind == "openvino_bf16":
        from .openvino import knows_bfloat16

        try:
            known_here = knows_bfloat16()
        except Exception as error:  # OpenVINO has errors of its own, and its libraries may not load
            return f"OpenVINO does not work here ({first_line(error)}); give --runtime torch."
        if not known_here:
            return "this processor computes nothing in bfloat16; give --runtime auto."
    return None


def require_runtime(kind: str, device: torch.device | str) -> None:
    """Refuse a kind that is not known, not for the device or not installed.

    Raises:
        InputError: with what to do.
    """
    if kind not in KINDS:
        raise InputError(f"--runtime {kind}: is none of {', '.join(KINDS)}, auto.")
    reason = obstacle(kind, device)
    if reason is not None:
        raise InputError(f"--runtime {kind}: {reason}")


def require_device(device: torch.device | str) -> None:
    """Refuse a device on which nothing can be computed here.

    Raises:
        InputError: with those that there are.
    """
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # PyTorch has another for each kind of device
        known = ", ".join(["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
        raise InputError(f"--device {device}: cannot compute here ({first_line(error)}); give {known}.") from error
