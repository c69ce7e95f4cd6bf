"""Dictionary transforms that MONAI does not have."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from lightmuseg.classes import IGNORED, probabilities_of

from .bcss import CODES


class CodesToClassesd(MapTransform):
    """Turn dataset codes [1, H, W] into class indices: 0 for everything else, then the classes in their order.

    The code "not_tumor", where no class or ignored code names it, is 0 where tumor is the only class. Where it is
    class i of several, it becomes 255 - i, "not class i", and 255 where no class is tumor.

    Args:
        keys: of the masks.
        classes: name of each class and the codes it gathers, such as ``{"tumor": [1, 19, 20]}``.
        ignored_codes: codes that say nothing about the tissue; they become 255, which losses and metrics leave out.
        merged_codes: codes that count as another one, such as ``{"19": 1}``; classes and ignored codes are looked up
            for that one.

    Raises:
        ValueError: for a code outside 0..254, or one that is named twice.
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: Mapping[str, Sequence[int]],
        ignored_codes: Sequence[int] = (),
        merged_codes: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(keys)
        named = [code for codes in classes.values() for code in codes] + list(ignored_codes)
        for code in named:
            if not 0 <= code < IGNORED or named.count(code) > 1:
                raise ValueError(f"code {code} must be in 0..254 and stand in one place of classes and ignored_codes.")
        self.lookup = np.zeros(256, dtype=np.float32)
        for index, codes in enumerate(classes.values(), start=1):
            self.lookup[list(codes)] = index
        if CODES["not_tumor"] not in named:
            tumor = next((i for i, codes in enumerate(classes.values(), start=1) if CODES["tumor"] in codes), 0)
            self.lookup[CODES["not_tumor"]] = 0 if tumor and len(classes) == 1 else IGNORED - tumor
        self.lookup[list(ignored_codes)] = IGNORED
        for code, other in (merged_codes or {}).items():
            if int(code) in named:
                raise ValueError(f"code {code} is merged into {other} and named in classes or ignored_codes as well.")
            self.lookup[int(code)] = self.lookup[other]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            classes = self.lookup[np.asarray(torch.as_tensor(result[key]).cpu()).astype(np.uint8)]
            result[key] = convert_to_dst_type(classes, result[key], dtype=torch.float32)[0]
        return result


class ClassMapsd(MapTransform):
    """From logits and class indices to what metrics take, alike for one class and for several.

    With one class, ``pred`` and ``label`` become binary maps [1, H, W], the label with 255 where nothing is annotated.
    With C classes they become one-hot [1 + C, H, W] with the background first, the label all zero where nothing is
    annotated, or nothing but what it is not: MONAI's metrics leave those pixels out in both forms
    (``ignore_index=255``). Two more keys hold the classes without the background: ``probability`` [C, H, W], and
    ``mask`` [C, H, W] of 0, 1 and 255.

    Args:
        pred: key of the logits, [1, H, W] or [1 + C, H, W].
        label: key of the class indices [1, H, W].
        threshold: of one class's probability.
    """

    def __init__(self, pred: str = "pred", label: str = "label", threshold: float = 0.5) -> None:
        super().__init__((pred, label))
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        pred, label = self.keys
        logits, indices = result[pred].float(), result[label]
        ignored = indices >= IGNORED - len(logits)
        if len(logits) == 1:
            probability, mask = probabilities_of(logits), indices
            result[pred] = (probability >= self.threshold).float()
        else:
            classes = torch.arange(len(logits), device=logits.device).reshape(-1, 1, 1)
            probability = probabilities_of(logits)[1:]
            result[pred] = (logits.argmax(dim=0, keepdim=True) == classes).float()
            result[label] = (indices == classes).float()
            mask = result[label][1:].masked_fill(ignored, IGNORED)
        return {**result, "probability": probability, "mask": mask}
