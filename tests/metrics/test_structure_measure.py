import numpy as np
import py_sod_metrics
import pytest
import torch

from lightmuseg.metrics import StructureMeasure


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_alpha_weighs_object_against_region(alpha):
    rng = np.random.default_rng(0)
    mask = rng.random((24, 31)) < 0.3
    probability = rng.random(mask.shape)
    reference = py_sod_metrics.Smeasure(alpha)
    reference.step(probability, mask, normalize=False)
    value = StructureMeasure(alpha=alpha)(torch.from_numpy(probability)[None, None], torch.from_numpy(mask)[None, None])
    assert value.item() == pytest.approx(reference.sms[0], abs=1e-6)


def test_empty_quadrants_count_nothing():
    # the centroid is in the last row and column: one quadrant holds all, and the prediction is the mask
    mask = torch.zeros(1, 1, 5, 6)
    mask[..., 4, 5] = 1
    assert StructureMeasure(alpha=0)(mask, mask).item() == pytest.approx(1)


@pytest.mark.parametrize("surroundings", [1e-7, 0.3, 0.9999999])
def test_constant_quadrants_that_no_float_can_hold_are_found(surroundings):
    # SSIM is 1 where mask and prediction are constant, whatever their values; 0 where only the mask is
    mask = torch.zeros(1, 1, 150, 170)
    mask[..., :60, :70] = 1
    probability = torch.full_like(mask, surroundings)
    probability[..., :10, :10] = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    value = StructureMeasure(alpha=0)(probability, mask).item()
    reference = py_sod_metrics.Smeasure(0)
    reference.step(probability[0, 0].double().numpy(), mask[0, 0].numpy() > 0, normalize=False)
    assert value == pytest.approx(reference.sms[0], abs=1e-6)
