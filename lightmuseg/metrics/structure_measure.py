"""Structure measure of probabilities."""

from __future__ import annotations

import torch
from monai.utils import MetricReduction

from lightmuseg.classes import IGNORED

from .image_metric import ImageMetric

EPSILON = torch.finfo(torch.float64).eps
ROUNDING = 1e-13  # of a sum in float64, relative
BAND = 64  # rows summed at once, so that what is made of them stays in a CPU's cache


class StructureMeasure(ImageMetric):
    """S-measure: how alike the structures of prediction and mask are, by object and by region.

    ``alpha`` times the object's score (mean and spread of the probabilities inside and outside the foreground) plus
    ``1 - alpha`` times the region's (SSIM of four quadrants that meet at the foreground's centroid, weighted by
    their pixels). A mask without foreground scores ``1 - mean(probability)``, one of foreground alone the mean. Equals
    PyPI's ``pysodmetrics``, except where that gives NaN: where the centroid is on the last row or column, the empty
    quadrants count nothing here. Quadrants where mask and prediction are both constant are alike, whatever their
    values; a prediction that varies by no more than float32 rounding counts as constant.

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
        0.981

    References:
        Fan et al., "Structure-measure: a new way to evaluate foreground maps", ICCV 2017;
        Cheng and Fan, "Structure-measure: a new way to evaluate foreground maps", IJCV 2021.
    """

    cpu_pixels = 2**20  # more, since it goes band by band

    def __init__(
        self, alpha: float = 0.5, ignore_index: int = IGNORED, reduction: MetricReduction | str = "mean"
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha} must be in [0, 1].")
        self.alpha = alpha

    def _sums(self, probability: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """By quadrant, [N, 6, 2, 2]: pixels, foreground, p of both, p(1 - p) of both."""
        images, _, width = truth.shape
        rows, columns = _halves(truth)
        # float64, and p(1 - p) for p squared: spreads are differences of these sums, and small near 0 and 1
        buffer = rows.new_empty(images, BAND, 4, width)
        by_column = rows.new_zeros(images, 2, 4 * width)
        for band, fg, half in zip(*(x.split(BAND, dim=1) for x in (probability, truth, rows))):
            values = buffer[:, : band.shape[1]]
            p, p_fg, variance, variance_fg = values.unbind(2)
            p.copy_(band)
            torch.mul(p, fg, out=p_fg)
            torch.addcmul(p, p, p, value=-1, out=variance)
            torch.mul(variance, fg, out=variance_fg)
            by_column.baddbmm_(half.mT, values.flatten(2))
        # counts are exact in float32 as well
        counts = torch.stack([rows.mT.to(truth) @ pixels for pixels in (valid, truth)], dim=1).to(rows)
        by_column = torch.cat([counts, by_column.unflatten(2, (4, width)).transpose(1, 2)], dim=1)
        return by_column @ columns[:, None]

    def _score(self, sums: torch.Tensor) -> torch.Tensor:
        similarity = _similarity(*sums.unbind(1)[:5])
        pixels = sums[:, 0]
        region = (similarity * pixels).sum(dim=(1, 2)) / pixels.sum(dim=(1, 2))

        n, n_fg, s, s_fg, variance, variance_fg = sums.sum(dim=(2, 3)).unbind(1)
        n_bg = n - n_fg
        # the background's score is that of 1 - p
        scores = _object_score(n_fg, s_fg, variance_fg), _object_score(n_bg, n_bg - (s - s_fg), variance - variance_fg)
        whole = (n_fg * scores[0] + n_bg * scores[1]) / n

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
    n: torch.Tensor, n_fg: torch.Tensor, sums: torch.Tensor, sums_fg: torch.Tensor, variances: torch.Tensor
) -> torch.Tensor:
    """SSIM of probabilities and mask."""
    n = n.clamp_min(1)
    x, y = sums / n, n_fg / n
    freedom = n - 1 + EPSILON
    cross = 4 * x * y * (sums_fg - sums * y) / freedom
    norm = (x**2 + y**2) * (_squared_deviations(n, sums, variances) + n_fg - n_fg * y) / freedom
    return torch.where(cross != 0, cross / (norm + EPSILON), (norm == 0).double())


def _object_score(n: torch.Tensor, sums: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """High where the probabilities are high and alike."""
    mean = sums / n.clamp_min(1)
    deviation = (_squared_deviations(n.clamp_min(1), sums, variances) / (n - 1).clamp_min(1)).sqrt()
    return 2 * mean / (mean**2 + 1 + deviation + EPSILON)


def _squared_deviations(n: torch.Tensor, sums: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """Sum of squared deviations from the mean, from the sums of p and of p(1 - p); 0 where that is rounding."""
    difference = sums * (n - sums) / n - variances
    return torch.where(difference > ROUNDING * variances, difference, 0)
