"""Random rotation, scaling, shift and flips in one resampling."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple_rep


class RandSimilarityd(RandomizableTransform, MapTransform):
    """Rotate by any angle, scale both sides alike, shift and flip: one random similarity for image and mask.

    MONAI's ``RandAffined`` draws a scale for each axis; another transform behind it for the scale would blur the image
    by a second interpolation and take four times as long. What lies outside is filled by reflection.

    Args:
        keys: of maps [C, H, W] of one size.
        spatial_size: (height, width) of the result in pixels.
        modes: "bilinear" or "nearest", for each key.
        rotate: draw an angle from the whole circle; else none.
        scale_range: the scale is drawn from 1 - scale_range to 1 + scale_range; above 1 enlarges.
        translate_range: shifts along both axes are drawn from minus to plus this many pixels.
        flip_probability: of each axis.

    Raises:
        ValueError: for ranges that make no sense.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int],
        modes: Sequence[str] | str = "bilinear",
        rotate: bool = True,
        scale_range: float = 0.0,
        translate_range: float = 0.0,
        flip_probability: float = 0.0,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        if not 0 <= scale_range < 1:
            raise ValueError(f"scale_range={scale_range} must be in [0, 1).")
        if not 0 <= flip_probability <= 1 or translate_range < 0:
            raise ValueError(
                f"flip_probability={flip_probability} must be in [0, 1], translate_range={translate_range} not below 0."
            )
        self.spatial_size = tuple(spatial_size)
        self.modes = ensure_tuple_rep(modes, len(self.keys))
        self.angle_range = math.pi if rotate else 0.0
        self.scale_range = scale_range
        self.translate_range = translate_range
        self.flip_probability = flip_probability
        self.matrix = torch.eye(2, 3)

    def randomize(self, data: Any = None) -> None:
        """Draw the matrix from (x, y) of the result to (x, y) of the source, both in pixels from the centre."""
        super().randomize(None)
        angle = self.R.uniform(-self.angle_range, self.angle_range)
        scale = self.R.uniform(1 - self.scale_range, 1 + self.scale_range)
        shift = self.R.uniform(-self.translate_range, self.translate_range, 2)
        flips = [-1.0 if self.R.random() < self.flip_probability else 1.0 for _ in range(2)]
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        self.matrix = torch.tensor(
            [[cos * flips[0], -sin * flips[1], shift[0]], [sin * flips[0], cos * flips[1], shift[1]]],
            dtype=torch.float32,
        )

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        self.randomize()
        for key, mode in self.key_iterator(result, self.modes):
            source = convert_to_tensor(result[key], dtype=torch.float32, track_meta=False)[None]
            result[key] = convert_to_dst_type(self._resampled(source, mode)[0], result[key], dtype=torch.float32)[0]
        return result

    def _resampled(self, source: torch.Tensor, mode: str) -> torch.Tensor:
        to, of = ([width / 2, height / 2] for height, width in (self.spatial_size, source.shape[-2:]))
        # affine_grid measures each axis in halves of its length
        theta = self.matrix * torch.tensor([*to, 1.0]) / torch.tensor(of)[:, None]
        grid = F.affine_grid(theta[None], [1, 1, *self.spatial_size], align_corners=False)
        return F.grid_sample(source, grid, mode=mode, padding_mode="reflection", align_corners=False)
