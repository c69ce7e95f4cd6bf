"""A network run by PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from lightmuseg.errors import InputError

from .normalised import NormalisedNetwork
from .parity import Parity


class TorchRuntime:
    """A :class:`.Runtime` of a PyTorch module, in channels-last.

    Args:
        network: takes normalised [B, 3, tile, tile] and gives [B, C, tile / stride, tile / stride].
        tile_size: side of the tiles, a multiple of 32.
        device: to run on.
        amp: mixed precision: float16 on a GPU, bfloat16 on a CPU.
        compiled: generate code by ``torch.compile``, on a GPU with CUDA graphs.

    Raises:
        InputError: for a tile size that the network does not take.
    """

    def __init__(
        self,
        network: nn.Module,
        tile_size: int = 512,
        device: torch.device | str = "cpu",
        amp: bool = False,
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.amp, self.compiled = amp, compiled
        self.parity: Parity | None = None
        self.tile_size = tile_size
        self.network = NormalisedNetwork(network).to(self.device, memory_format=torch.channels_last).eval()
        self._call = self.network
        try:
            trial = self(np.zeros((1, tile_size, tile_size, 3), np.uint8))
        except (ValueError, RuntimeError) as error:
            raise InputError(f"--tile_size {tile_size}: the network cannot take it ({error}); give 512.") from error
        self.out_channels = trial.shape[1]
        self.output_stride = tile_size // trial.shape[2]
        if compiled:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self._call = torch.compile(self.network, mode=mode, dynamic=False)

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        # a compiled function that is begun in inference mode fails at the second shape
        with torch.no_grad() if self.compiled else torch.inference_mode():
            batch = torch.from_numpy(tiles)
            if self.device.type == "cuda":
                # the copy from pinned memory runs beside the network
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, self._precision(), enabled=self.amp):
                logits = self._call(batch)
            return logits.float().cpu().numpy()

    def _precision(self) -> torch.dtype:
        # bfloat16's 8 digits change the class of more than one pixel in a hundred; CPUs compute in nothing finer
        return torch.float16 if self.device.type == "cuda" else torch.bfloat16

    def describe(self) -> dict[str, Any]:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        precision = str(self._precision() if self.amp else torch.float32).removeprefix("torch.")
        kind = "torch_compile" if self.compiled else "torch"
        return {"runtime": kind, "device": name, "precision": precision, "threads": torch.get_num_threads()}
