"""Random amounts of stain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from skimage.color import hed_from_rgb, rgb_from_hed

from .random_image import RandImageTransform


class RandStaind(RandImageTransform):
    """Change the amounts of hematoxylin, eosin and what remains, by factor and by shift, in optical density.

    A pixel's optical density ``-log10((255 I + 1) / 256)`` is taken apart into the three stains; each amount is
    multiplied by a factor from 1 - stain_range to 1 + stain_range, and a shift from -stain_shift to stain_shift is
    added. Both are drawn once for an image and a stain.

    Args:
        keys: of RGB images [3, H, W] in [0, 1].
        stain_range: of the factors, below 1.
        stain_shift: of the shifts, in amounts of stain; about 0.3 is the hematoxylin of a dark nucleus.
        prob: that an image is changed at all.

    Raises:
        ValueError: for ranges that make no sense.

    Reference:
        Tellez et al., Whole-slide mitosis detection using domain-invariant data augmentation, IEEE TMI 2018; the
        stains are those of Ruifrok and Johnston, as ``skimage.color.rgb2hed`` has them.
    """

    def __init__(
        self, keys: KeysCollection, stain_range: float = 0.0, stain_shift: float = 0.0, prob: float = 1.0
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if not 0 <= stain_range < 1 or stain_shift < 0:
            raise ValueError(f"stain_range={stain_range} must be in [0, 1), stain_shift={stain_shift} not below 0.")
        self.stain_range, self.stain_shift = stain_range, stain_shift
        self.factors, self.shifts = np.ones(3), np.zeros(3)

    def randomize(self, data: Any = None) -> None:
        """Draw a factor and a shift for each stain."""
        super().randomize(None)
        self.factors = self.R.uniform(1 - self.stain_range, 1 + self.stain_range, 3)
        self.shifts = self.R.uniform(-self.stain_shift, self.stain_shift, 3)

    def changed(self, image: torch.Tensor) -> torch.Tensor:
        # there and back in one product; rows are pixels
        mixed = torch.from_numpy((hed_from_rgb * self.factors) @ rgb_from_hed).float()
        added = torch.from_numpy(self.shifts @ rgb_from_hed).float() * -math.log(10)
        # by natural logarithms: the negated densities, ln(10) times as large on both sides
        stained = torch.addmm(added[:, None], mixed.T, (image.flatten(1) * (255 / 256) + 1 / 256).log_()).exp_()
        return stained.mul_(256 / 255).sub_(1 / 255).clamp_(0, 1).reshape(image.shape)
