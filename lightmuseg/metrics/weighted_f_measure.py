"""Weighted F-measure of probabilities."""

from __future__ import annotations

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.transforms.utils import distance_transform_edt
from monai.utils import MetricReduction

from lightmuseg.classes import IGNORED

from .image_metric import ImageMetric

EPSILON = torch.finfo(torch.float64).eps
SIGMA = 5.0  # px, of the window that lets neighbours make up for an error
RADIUS = 3  # px, of the same
HALF_WEIGHT = 5.0  # px from the foreground, where the weight of a false alarm is half-way from 1 to 2


class WeightedFMeasure(ImageMetric):
    """Weighted F-measure: errors count less where neighbours make up for them, more far from the foreground.

    A mask without foreground scores 0, whatever the prediction. Equals PyPI's ``pysodmetrics``; on a GPU, where MONAI
    takes the distance transform from cuCIM, another one of several foreground pixels at the same distance may
    be the nearest, and the value differ a little.

    Ignored pixels have no error and are in no sum, as if outside of the image: where they are all outside of a
    rectangle, the value is that of the rectangle.

    Args:
        beta2: weight of precision against recall, the square of the F-measure's beta.
        ignore_index: pixels of ``y`` with this value count in nothing; an image of nothing else is left out.
        reduction: over images and channels, as in MONAI's metrics.

    Raises:
        ValueError: where beta2 is not above 0.

    Example:
        >>> metric = WeightedFMeasure()
        >>> _ = metric(torch.tensor([[[[0.9, 0.2], [0.1, 0.2]]]]), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))
        >>> round(metric.aggregate().item(), 4)
        0.7724

    Reference:
        Margolin, Zelnik-Manor and Tal, "How to evaluate foreground maps?", CVPR 2014.
    """

    def __init__(
        self, beta2: float = 1.0, ignore_index: int = IGNORED, reduction: MetricReduction | str = "mean"
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        if not beta2 > 0:
            raise ValueError(f"beta2={beta2} must be above 0.")
        self.beta2 = beta2

    def _sums(self, probability: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Foreground found, false alarms (both weighted) and foreground, [N, 3]."""
        distance, nearest = _nearest_foreground(truth)
        error = (probability - truth).abs()
        # a background pixel takes the error of the edge next to it, so that edges are not blurred with their outside
        spread = error.flatten(1).gather(1, nearest.flatten(1)).view_as(error) * valid
        window = gaussian_1d(torch.tensor(SIGMA), truncated=RADIUS / SIGMA, approx="sampled", normalize=True)
        smooth = separable_filtering(spread[:, None], window)[:, 0]

        found = truth * (1 - torch.minimum(error, smooth))
        false_alarms = (1 - truth) * error * (2 - torch.exp2(-distance / HALF_WEIGHT))
        return torch.stack([x.sum(dim=(1, 2), dtype=torch.float64) for x in (found, false_alarms, truth)], dim=1)

    def _score(self, sums: torch.Tensor) -> torch.Tensor:
        found, false_alarms, foreground = sums.unbind(1)
        recall = found / foreground.clamp_min(1)
        precision = found / (found + false_alarms + EPSILON)
        return (1 + self.beta2) * recall * precision / (recall + self.beta2 * precision + EPSILON)


def _nearest_foreground(truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each pixel's distance to the nearest foreground pixel and that one's place in the flattened image, [N, H, W].

    Of an image without foreground, 0 and the pixel itself.
    """
    background = truth < truth.amax(dim=(1, 2), keepdim=True)
    # MONAI 1.6 makes the indices on torch's default device and returns zeros where the mask is on another
    with truth.device:
        distance, place = distance_transform_edt(background, return_indices=True)
    return distance.to(truth.dtype), place[:, 0].long() * truth.shape[2] + place[:, 1]
