"""A network run by ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from .cache import exported, fingerprint
from .normalised import NormalisedNetwork
from .runtime import Runtime, RuntimeInfo, in_batches_of

OPSET = 18


def onnx_runtime(network: nn.Module, tile_size: int, batch_size: int, device: torch.device) -> Runtime:
    """A folded network by ONNX Runtime in float32; the ONNX file is kept in the cache."""
    import onnxruntime

    # a CPU takes one tile after the other, which stays in its caches
    batch_size = 1 if device.type == "cpu" else batch_size

    def write(path: Path) -> None:
        example = torch.zeros(batch_size, tile_size, tile_size, 3, dtype=torch.uint8)
        # the newer exporter needs one package more, onnxscript, and gives the same graph here
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            module = NormalisedNetwork(network).cpu().eval()
            torch.onnx.export(module, (example,), str(path), opset_version=OPSET, input_names=["tiles"], dynamo=False)

    path = exported(f"{fingerprint(network, OPSET, tile_size, batch_size)}.onnx", write)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    session = onnxruntime.InferenceSession(path, settings, providers=[*wanted, "CPUExecutionProvider"])
    call = in_batches_of(batch_size, lambda tiles: session.run(None, {"tiles": tiles})[0])
    info = RuntimeInfo("onnx", session.get_providers()[0], "float32", settings.intra_op_num_threads)
    return Runtime.of(call, tile_size, info)
