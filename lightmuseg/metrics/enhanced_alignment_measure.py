"""Enhanced-alignment measure of probabilities."""

from __future__ import annotations

import torch

from .image_metric import ImageMetric

LEVELS = 256
EPSILON = torch.finfo(torch.float64).eps


class EnhancedAlignmentMeasure(ImageMetric):
    """Mean E-measure: how a prediction aligns with the mask pixel by pixel and on the whole.

    The mean over the 256 maps of the pixels whose probability, times 255 and truncated, is at least a threshold
    of 0 to 255; the product is taken in the precision of ``y_pred``, float32 at least. So does PyPI's
    ``pysodmetrics``, which this metric equals. The measure has no geometry: with ignored pixels it is that of the
    others. It is divided by the number of pixels less one (of a single pixel by 1), so a perfect prediction of few
    pixels is above 1.

    Args:
        ignore_index: pixels of ``y`` with this value count in nothing; an image of nothing else is left out.
        reduction: over images and channels, as in MONAI's metrics.

    Example:
        >>> metric = EnhancedAlignmentMeasure()
        >>> _ = metric(torch.tensor([[[[0.9, 0.2], [0.1, 0.2]]]]), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))
        >>> round(metric.aggregate().item(), 4)
        1.0381

    References:
        Fan et al., "Enhanced-alignment measure for binary foreground map evaluation", IJCAI 2018;
        Fan et al., "Cognitive vision inspired object segmentation metric and loss function", SSI 2021.
    """

    def _sums(self, probability: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Background and foreground pixels of each level, [N, 2, 256]."""
        images = len(probability)
        level = (probability * (LEVELS - 1)).to(torch.uint8).to(truth.dtype)
        # one histogram of all images: ignored, background and foreground pixels of the first, then of the second, ...
        kind = truth + valid + 3 * torch.arange(images, device=truth.device, dtype=truth.dtype)[:, None, None]
        slot = torch.add(level, kind, alpha=LEVELS).int()
        return torch.bincount(slot.flatten(), minlength=images * 3 * LEVELS).view(images, 3, LEVELS)[:, 1:]

    def _score(self, sums: torch.Tensor) -> torch.Tensor:
        # pixels at or above each threshold, the highest threshold first
        above_in_bg, above_in_fg = sums.flip(-1).cumsum(-1).double().unbind(1)
        bg, fg = sums.sum(-1, keepdim=True).double().unbind(1)
        pixels = bg + fg
        above = above_in_bg + above_in_fg
        mean_mask, mean_above = fg / pixels, above / pixels

        total = torch.where(fg == 0, pixels - above, above)
        mixed = (
            above_in_fg * _alignment(1 - mean_above, 1 - mean_mask)
            + above_in_bg * _alignment(1 - mean_above, -mean_mask)
            + (fg - above_in_fg) * _alignment(-mean_above, 1 - mean_mask)
            + (bg - above_in_bg) * _alignment(-mean_above, -mean_mask)
        )
        total = torch.where((fg > 0) & (bg > 0), mixed, total)
        return (total / (pixels - 1).clamp_min(1)).mean(-1)


def _alignment(prediction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Enhanced alignment of two values less their images' means."""
    return (2 * prediction * mask / (prediction**2 + mask**2 + EPSILON) + 1) ** 2 / 4
