"""A network run by NVIDIA's TensorRT, through MONAI's compiler."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import torch
from monai.networks import trt_compile
from torch import nn

from .cache import cache_folder, fingerprint
from .normalised import NormalisedNetwork
from .runtime import Runtime, RuntimeInfo, in_batches_of


def tensorrt_runtime(network: nn.Module, tile_size: int, batch_size: int, device: torch.device) -> Runtime:
    """A folded network by TensorRT in float16; the engine is kept in the cache, for this GPU alone."""
    name = torch.cuda.get_device_name(device)
    mark = fingerprint(network, importlib.metadata.version("tensorrt-cu13"), name, tile_size, batch_size)
    shape = [batch_size, 3, tile_size, tile_size]
    settings = {
        "precision": "fp16", "input_profiles": [{"x": [shape, shape, shape]}],
        "export_args": {"dynamo": False, "opset_version": 18},
    }  # fmt: skip
    # MONAI writes the engine beside the name it is given, once
    base = cache_folder() / f"{mark}.trt"
    module = NormalisedNetwork(network).to(device).eval()
    module.network = trt_compile(module.network, str(base), args=settings)

    def call(tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = module(torch.from_numpy(tiles).pin_memory().to(device, non_blocking=True))
            result: np.ndarray = logits.float().cpu().numpy()
            return result

    return Runtime.of(in_batches_of(batch_size, call), tile_size, RuntimeInfo("tensorrt", name, "float16"))
