"""What random changes of an image's pixels have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping

import torch
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor


class RandImageTransform(RandomizableTransform, MapTransform):
    """Draw once, then change the image of every key, or none of them, by chance."""

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in self.key_iterator(result):
                image = convert_to_tensor(result[key], dtype=torch.float32, track_meta=False)
                result[key] = convert_to_dst_type(self.changed(image), result[key], dtype=torch.float32)[0]
        return result

    @abstractmethod
    def changed(self, image: torch.Tensor) -> torch.Tensor:
        """An image [3, H, W] in [0, 1], float32, by what was drawn."""
