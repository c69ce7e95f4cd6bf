"""A network run by OpenVINO, on CPUs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from lightmuseg.networks import fold
from lightmuseg.provenance import sha256_of

from .cache import exported, fingerprint
from .normalised import NormalisedNetwork
from .runtime import Runtime, RuntimeInfo, in_batches_of

if TYPE_CHECKING:
    import openvino

# what OpenVINO calls the precision of a kind
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def knows_bfloat16() -> bool:
    """Whether this processor computes in bfloat16; where it does not, OpenVINO takes float32 and says nothing."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def converted(network: nn.Module, tile_size: int) -> openvino.Model:
    """An OpenVINO model of a folded network: uint8 [1, tile, tile, 3] to float32 logits.

    One tile at once: more are slower, since they leave the caches of a CPU.
    """
    import openvino

    shape = [1, tile_size, tile_size, 3]
    with warnings.catch_warnings(), torch.inference_mode():
        # the sizes that become constants are those of all tiles
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return openvino.convert_model(
            NormalisedNetwork(network).eval(), example_input=torch.zeros(shape, dtype=torch.uint8), input=shape
        )


def save(model: openvino.Model, path: Path) -> None:
    """Write a model in its own precision: .xml, and .bin beside it."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)


def openvino_runtime(
    network: nn.Module, tile_size: int, precision: str, prepare: Callable[[nn.Module], nn.Module]
) -> Runtime:
    """A trained network by OpenVINO, in float32 or bfloat16; the converted model is kept in the cache.

    Args:
        network: as it was trained.
        tile_size: side of the tiles.
        precision: "float32" or "bfloat16".
        prepare: gives what is converted, such as :func:`.fold`; it takes longer than all else, so it is called only
            where the cache has nothing by the same code.
    """
    import openvino

    code = [sha256_of(str(sys.modules[name].__file__)) for name in (fold.__module__, prepare.__module__)]
    mark = fingerprint(network, openvino.__version__, tile_size, prepare.__qualname__, code)
    path = exported(f"{mark}.xml", lambda file: save(converted(prepare(network), tile_size), file), ".bin")
    return load(path, tile_size, precision)


def load(path: Path, tile_size: int, precision: str) -> Runtime:
    """The runtime of a saved model."""
    import openvino

    core = openvino.Core()
    # as many threads as the process has been given, and no other precision than the one that was proven
    threads = torch.get_num_threads()
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads,
    }  # fmt: skip
    request = core.compile_model(path, "CPU", settings).create_infer_request()
    call = in_batches_of(1, lambda tiles: request.infer([tiles], share_inputs=True, share_outputs=True)[0])
    return Runtime.of(call, tile_size, RuntimeInfo("openvino", "cpu", precision, threads))
