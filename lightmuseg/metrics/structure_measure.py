"""Structure measure of probabilities."""

from __future__ import annotations

import torch
from monai.utils import MetricReduction

from .image_metric import ImageMetric

EPSILON = torch.finfo(torch.float64).eps
ROUNDING = 1e-13  # of a sum of squares in float64, relative
BAND = 128  # rows summed at once, so that what is made of them stays in a CPU's cache


class StructureMeasure(ImageMetric):
    """S-measure: how alike the structures of prediction and mask are, by object and by region.

    ``alpha`` times the object's score (mean and spread of the probabilities inside and outside the foreground) plus
    ``1 - alpha`` times the region's (SSIM of four quadrants that meet at the foreground's centroid, weighted by
    their pixels). A mask without foreground scores ``1 - mean(probability)``, one of foreground alone the mean. Equals
    PyPI's ``pysodmetrics``, except where that gives NaN: where the centroid is on the last row or column, the empty
    quadrants count nothing here. Probabilities of a quadrant that differ by less than 3e-7 of their mean are
    taken as constant.

    Ignored pixels are left out of means, counts and weights. Where they are all outside of a rectangle, the value is
    that of the rectangle, unless the centroid is just between two pixels: it is rounded to the even one of the image.

    Args:
        alpha: weight of the object's score, in [0, 1].
        ignore_index: pixels of ``y`` with this value count in nothing; an image of nothing else is left out.
        reduction: over images and channels, as in MONAI's metrics.

    Raises:
        ValueError: where alpha is outside [0, 1].

    Example:
        >>> metric = StructureMeasure()
        >>> _ = metric(torch.tensor([[[[0.9, 0.2], [0.1, 0.2]]]]), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))
        >>> round(metric.aggregate().item(), 4)
        0.8391

    References:
        Fan et al., "Structure-measure: a new way to evaluate foreground maps", ICCV 2017;
        Cheng and Fan, "Structure-measure: a new way to evaluate foreground maps", IJCV 2021.
    """

    def __init__(self, alpha: float = 0.5, ignore_index: int = 255, reduction: MetricReduction | str = "mean") -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha} must be in [0, 1].")
        self.alpha = alpha

    def _sums(self, probability: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Number, sum and sum of squares of each quadrant's probabilities and of its foreground's, [N, 6, 2, 2]."""
        rows, columns = _halves(truth)
        by_column: torch.Tensor | float = 0.0
        for p, fg, pixels, half in zip(*(x.split(BAND, dim=1) for x in (probability, truth, valid, rows))):
            # float64: variances are differences of these sums
            values = torch.stack([pixels, fg, p, p * fg], dim=2).double()
            squares = values[:, :, 2:] * values[:, :, 2:3]
            by_column = by_column + torch.cat([half.mT @ x.flatten(2) for x in (values, squares)], dim=2)
        return by_column.unflatten(2, (6, -1)).transpose(1, 2) @ columns[:, None]

    def _score(self, sums: torch.Tensor) -> torch.Tensor:
        pixels, pixels_fg, s, s_fg, ss, ss_fg = sums.unbind(1)
        similarity = _similarity(pixels, s, ss, pixels_fg, s_fg)
        region = (similarity * pixels).sum(dim=(1, 2)) / pixels.sum(dim=(1, 2))

        n, n_fg, s, s_fg, ss, ss_fg = sums.sum(dim=(2, 3)).unbind(1)
        n_bg, s_bg, ss_bg = n - n_fg, s - s_fg, ss - ss_fg
        # of 1 - p over the background
        s_bg, ss_bg = n_bg - s_bg, n_bg - 2 * s_bg + ss_bg
        whole = (n_fg * _object_score(n_fg, s_fg, ss_fg) + n_bg * _object_score(n_bg, s_bg, ss_bg)) / n

        score = (self.alpha * whole + (1 - self.alpha) * region).clamp_min(0)
        score = torch.where(n_fg == n, s / n, score)
        return torch.where(n_fg == 0, 1 - s / n, score)


def _halves(truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """1 where a row is in the upper, lower half, [N, H, 2], and a column in the left, right half, [N, W, 2].

    The upper and the left half hold the foreground's centroid.
    """
    halves = []
    for counts in (truth.sum(2).double(), truth.sum(1).double()):
        place = torch.arange(counts.shape[1], device=truth.device, dtype=counts.dtype)
        centroid = ((counts * place).sum(1, keepdim=True) / counts.sum(1, keepdim=True)).round()
        first = place <= centroid
        halves.append(torch.stack([first, ~first], dim=2).double())
    return halves[0], halves[1]


def _similarity(
    n: torch.Tensor, sums: torch.Tensor, squares: torch.Tensor, n_fg: torch.Tensor, sums_fg: torch.Tensor
) -> torch.Tensor:
    """SSIM of probabilities and mask from the sums over their pixels."""
    n = n.clamp_min(1)
    x, y = sums / n, n_fg / n
    spread = squares - sums * x
    spread = torch.where(spread > ROUNDING * squares, spread, 0)
    freedom = n - 1 + EPSILON
    cross = 4 * x * y * (sums_fg - sums * y) / freedom
    norm = (x**2 + y**2) * (spread + n_fg - n_fg * y) / freedom
    return torch.where(cross != 0, cross / (norm + EPSILON), (norm == 0).double())


def _object_score(n: torch.Tensor, sums: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """High where the values are high and alike, from their number, sum and sum of squares."""
    mean = sums / n.clamp_min(1)
    deviation = ((squares - sums * mean).clamp_min(0) / (n - 1).clamp_min(1)).sqrt()
    return 2 * mean / (mean**2 + 1 + deviation + EPSILON)
