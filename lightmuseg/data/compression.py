"""Random loss by JPEG."""

from __future__ import annotations

from typing import Any

import simplejpeg
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from .random_image import RandImageTransform


class RandJpegd(RandImageTransform):
    """Write images as JPEG and read them again, as scanners and archives did to slides.

    Args:
        keys: of RGB images [3, H, W] in [0, 1].
        quality: lowest and highest, as libjpeg counts it, 1 to 100; drawn once for all keys.
        prob: that an image is changed at all.

    Raises:
        ValueError: for qualities that do not exist.
    """

    def __init__(self, keys: KeysCollection, quality: tuple[int, int] = (20, 95), prob: float = 0.5) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        lowest, highest = quality
        if not 1 <= lowest <= highest <= 100:
            raise ValueError(f"quality={lowest}, {highest} must be two qualities from 1 to 100, the lower first.")
        self.lowest, self.highest = lowest, highest
        self.quality = highest

    def randomize(self, data: Any = None) -> None:
        """Draw the quality."""
        super().randomize(None)
        self.quality = int(self.R.randint(self.lowest, self.highest + 1))

    def changed(self, image: torch.Tensor) -> torch.Tensor:
        pixels = (image * 255).round_().clamp_(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
        data = simplejpeg.encode_jpeg(pixels, self.quality, colorsubsampling="420", fastdct=False)
        return torch.from_numpy(simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)).permute(2, 0, 1) / 255
