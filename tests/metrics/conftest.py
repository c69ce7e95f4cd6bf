"""The reference values of PyPI's pysodmetrics, image by image."""

import numpy as np
import py_sod_metrics
import pytest

from lightmuseg.metrics import EnhancedAlignmentMeasure, StructureMeasure, WeightedFMeasure


class RegionWithoutEmptyQuadrants(py_sod_metrics.Smeasure):
    """The reference gives NaN for the SSIM of no pixel; its weight is 0."""

    def ssim(self, pred, gt):
        return super().ssim(pred, gt) if pred.size else 0.0


def structure(probability, mask, alpha=0.5):
    measure = RegionWithoutEmptyQuadrants(alpha)
    # in float32 the reference's own means are off, and with them which quadrants are constant
    measure.step(probability.astype(np.float64), mask, normalize=False)
    return measure.sms[0]


def enhanced_alignment(probability, mask):
    measure = py_sod_metrics.Emeasure()
    measure.step(probability, mask, normalize=False)
    return measure.changeable_ems[0].mean()


def weighted_f(probability, mask, beta2=1):
    measure = py_sod_metrics.WeightedFmeasure(beta2)
    measure.step(probability.astype(np.float64), mask, normalize=False)
    return measure.weighted_fms[0]


PAIRS = {
    "structure": (StructureMeasure, structure),
    "enhanced_alignment": (EnhancedAlignmentMeasure, enhanced_alignment),
    "weighted_f": (WeightedFMeasure, weighted_f),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """A metric's class and the reference: a function of one image's probabilities and bool mask, [H, W]."""
    return PAIRS[request.param]
