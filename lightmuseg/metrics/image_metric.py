"""What the metrics of one value an image and channel share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from monai.metrics import CumulativeIterationMetric, do_metric_reduction
from monai.utils import MetricReduction, convert_to_tensor

from lightmuseg.classes import IGNORED


class ImageMetric(CumulativeIterationMetric):
    """A measure of each image and channel by itself, then reduced over all of them.

    Called with probabilities in [0, 1] and masks of 0, 1 and ``ignore_index``, both [B, C, H, W] or lists of
    [C, H, W]. An image without annotated pixels gives NaN and is left out of the reduction. Half precision is
    computed in float32.

    Args:
        ignore_index: pixels of ``y`` with this value count in nothing.
        reduction: over images and channels, as in MONAI's metrics.
    """

    cpu_pixels = 2**18  # of the images a CPU takes at once, so that they stay in its cache

    def __init__(self, ignore_index: int = IGNORED, reduction: MetricReduction | str = "mean") -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.reduction = reduction

    @abstractmethod
    def _sums(self, probability: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """What the score needs to know of an image's pixels, [N, ...]; all three are [N, H, W] of one dtype.

        ``probability`` is 0 where nothing is annotated, ``truth`` 1 on foreground, ``valid`` 1 where annotated.
        """

    @abstractmethod
    def _score(self, sums: torch.Tensor) -> torch.Tensor:
        """One value an image, [N], from its sums; of no use where nothing is annotated."""

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: object) -> torch.Tensor:
        """One value an image and channel, [B, C]; NaN where nothing is annotated."""
        if y is None or y_pred.shape != y.shape or y_pred.ndim != 4:
            raise ValueError(f"y_pred {tuple(y_pred.shape)} must be [B, C, H, W], and y of the same shape.")
        probability = convert_to_tensor(y_pred, track_meta=False).flatten(0, 1)
        mask = convert_to_tensor(y, track_meta=False).flatten(0, 1)
        at_once = len(mask) if mask.is_cuda else max(1, self.cpu_pixels // mask[0].numel())
        parts = [self._part(*pair) for pair in zip(probability.split(at_once), mask.split(at_once))]
        sums, annotated, in_range = (torch.cat(part) for part in zip(*parts))
        values = torch.where(annotated, self._score(sums), torch.nan)
        # raised by aggregate(): here it would make a GPU wait
        values = torch.where(in_range, values, torch.inf)
        return values.float().unflatten(0, y_pred.shape[:2])

    def _part(self, probability: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sums of some images, whether they have annotated pixels and whether their probabilities are some."""
        dtype = torch.promote_types(probability.dtype, torch.float32)
        probability, mask = probability.to(dtype), mask.to(dtype)
        # comparisons that write numbers: several times faster than through bool on a CPU
        truth = torch.eq(mask, 1, out=torch.empty_like(mask))
        valid = torch.ne(mask, self.ignore_index, out=torch.empty_like(mask))
        in_range = (probability.amin(dim=(1, 2)) >= 0) & (probability.amax(dim=(1, 2)) <= 1)
        return self._sums(probability * valid, truth, valid), valid.amax(dim=(1, 2)) > 0, in_range

    def aggregate(self, reduction: MetricReduction | str | None = None) -> torch.Tensor:
        """The values of all images so far, reduced; images without annotation are left out.

        Raises:
            ValueError: before the first image, and where a prediction was no probability.
        """
        data = self.get_buffer()
        if not isinstance(data, torch.Tensor):
            raise ValueError("No images yet: call the metric before aggregate().")
        if data.isinf().any():
            raise ValueError("y_pred had values outside [0, 1]: give probabilities, such as a sigmoid's.")
        return do_metric_reduction(data, reduction or self.reduction)[0]
