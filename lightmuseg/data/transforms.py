"""Dictionary transforms that MONAI does not have."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

IGNORED = 255


class CodesToClassesd(MapTransform):
    """Turn dataset codes [1, H, W] into class indices: 0 for everything else, then the classes in their order.

    Args:
        keys: of the masks.
        classes: name of each class and the codes it gathers, such as ``{"tumor": [1, 19, 20]}``.
        ignored_codes: codes that say nothing about the tissue; they become 255, which losses and metrics leave out.
        allow_missing_keys: as in MONAI.

    Raises:
        ValueError: for a code outside 0..254, or one that is named twice.
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: Mapping[str, Sequence[int]],
        ignored_codes: Sequence[int] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        named = [code for codes in classes.values() for code in codes] + list(ignored_codes)
        for code in named:
            if not 0 <= code < IGNORED or named.count(code) > 1:
                raise ValueError(f"code {code} must be in 0..254 and stand in one place of classes and ignored_codes.")
        self.lookup = np.zeros(256, dtype=np.float32)
        for index, codes in enumerate(classes.values(), start=1):
            self.lookup[list(codes)] = index
        self.lookup[list(ignored_codes)] = IGNORED

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            classes = self.lookup[np.asarray(torch.as_tensor(result[key]).cpu()).astype(np.uint8)]
            result[key] = convert_to_dst_type(classes, result[key], dtype=torch.float32)[0]
        return result
