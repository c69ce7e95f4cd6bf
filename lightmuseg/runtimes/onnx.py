"""A network run by ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from .cache import exported, fingerprint
from .exported import ExportedRuntime
from .normalised import NormalisedNetwork

OPSET = 18


def onnx_runtime(network: nn.Module, tile_size: int, batch_size: int, device: torch.device) -> ExportedRuntime:
    """A folded network by ONNX Runtime in float32; the ONNX file is kept in the cache."""
    import onnxruntime

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
    description = {
        "runtime": "onnx", "device": session.get_providers()[0], "precision": "float32",
        "threads": settings.intra_op_num_threads,
    }  # fmt: skip
    return ExportedRuntime(lambda tiles: session.run(None, {"tiles": tiles})[0], batch_size, tile_size, description)
