"""A network run by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from lightmuseg.errors import InputError


class TorchRuntime:
    """A :class:`.Runtime` of a PyTorch module, whose tiles are scaled to [0, 1] and normalised first.

    Args:
        network: takes [B, 3, tile, tile] and gives [B, C, tile / stride, tile / stride].
        tile_size: side of the tiles, a multiple of 32.
        mean, std: of each channel after scaling to [0, 1]; by default ImageNet's.
        device: to run on.
        amp: mixed precision, bfloat16 where the device has it.

    Raises:
        InputError: for a tile size that the network does not take.
    """

    def __init__(
        self,
        network: nn.Module,
        tile_size: int = 512,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        device: torch.device | str = "cpu",
        amp: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.amp = amp
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()
        self.tile_size = tile_size
        # uint8 * factor + offset = (uint8 / 255 - mean) / std
        self._factor = (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1).to(self.device)
        self._offset = (-torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1).to(self.device)
        try:
            trial = self(np.zeros((1, tile_size, tile_size, 3), np.uint8))
        except (ValueError, RuntimeError) as error:
            raise InputError(f"--tile_size {tile_size}: the network cannot take it ({error}); give 512.") from error
        self.out_channels = trial.shape[1]
        self.output_stride = tile_size // trial.shape[2]

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = self.normalised(tiles)
            with torch.autocast(self.device.type, self._precision(), enabled=self.amp):
                logits = self.network(batch)
            return logits.float().cpu().numpy()

    def normalised(self, tiles: np.ndarray) -> torch.Tensor:
        """Tiles, uint8 [B, H, W, 3], as the network takes them: float [B, 3, H, W] on the device."""
        # NHWC in memory is what PyTorch calls channels-last
        batch = torch.from_numpy(tiles).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return torch.addcmul(self._offset, batch.float(), self._factor)

    def _precision(self) -> torch.dtype:
        if self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            return torch.float16
        return torch.bfloat16

    def describe(self) -> dict[str, object]:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        precision = str(self._precision() if self.amp else torch.float32).removeprefix("torch.")
        return {"runtime": "torch", "device": name, "precision": precision, "threads": torch.get_num_threads()}
