"""A network run by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from lightmuseg.errors import InputError

from .normalised import NormalisedNetwork
from .runtime import Runtime, RuntimeInfo


def torch_runtime(
    network: nn.Module,
    tile_size: int = 512,
    device: torch.device | str = "cpu",
    amp: bool = False,
    compiled: bool = False,
) -> Runtime:
    """A network by PyTorch, in channels-last; the network itself moves to the device.

    Args:
        network: takes normalised [B, 3, tile, tile] and gives [B, C, tile / stride, tile / stride].
        tile_size: side of the tiles, a multiple of 32.
        device: to run on.
        amp: mixed precision: float16 on a GPU, bfloat16 on a CPU.
        compiled: generate code by ``torch.compile``, on a GPU with CUDA graphs.

    Raises:
        InputError: for a tile size that the network does not take.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    # bfloat16's 8 digits change the class of more than one pixel in a hundred; CPUs compute in nothing finer
    half = torch.float16 if on_gpu else torch.bfloat16
    module = NormalisedNetwork(network).to(device, memory_format=torch.channels_last).eval()

    def run(function: Callable[[torch.Tensor], torch.Tensor], tiles: np.ndarray) -> np.ndarray:
        # a compiled function that is first called in inference mode fails at the second shape
        with torch.no_grad() if compiled else torch.inference_mode():
            batch = torch.from_numpy(tiles)
            if on_gpu:
                # the copy from pinned memory runs beside the network
                batch = batch.pin_memory().to(device, non_blocking=True)
            with torch.autocast(device.type, half, enabled=amp):
                logits = function(batch)
            return logits.float().cpu().numpy()

    info = RuntimeInfo(
        "torch_compile" if compiled else "torch",
        torch.cuda.get_device_name(device) if on_gpu else device.type,
        str(half if amp else torch.float32).removeprefix("torch."),
        torch.get_num_threads(),
    )
    try:
        runtime = Runtime.of(partial(run, module), tile_size, info)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--tile_size {tile_size}: the network cannot take it ({error}); give 512.") from error
    if not compiled:
        return runtime
    generated = torch.compile(module, mode="reduce-overhead" if on_gpu else "default", dynamic=False)
    return replace(runtime, call=partial(run, generated))
