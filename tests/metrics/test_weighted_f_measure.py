import numpy as np
import py_sod_metrics
import pytest
import torch

from lightmuseg.metrics import WeightedFMeasure


@pytest.mark.parametrize("beta2", [0.3, 2])
def test_beta2_weighs_precision_against_recall(beta2):
    rng = np.random.default_rng(0)
    mask = rng.random((24, 31)) < 0.3
    probability = rng.random(mask.shape)
    reference = py_sod_metrics.WeightedFmeasure(beta2)
    reference.step(probability, mask, normalize=False)
    value = WeightedFMeasure(beta2=beta2)(torch.from_numpy(probability)[None, None], torch.from_numpy(mask)[None, None])
    assert value.item() == pytest.approx(reference.weighted_fms[0], abs=1e-6)


def test_nothing_to_find_scores_nothing():
    mask = torch.zeros(2, 1, 6, 6)
    mask[1, 0, 2, 2] = 1
    assert WeightedFMeasure()(mask, mask).flatten().tolist() == pytest.approx([0, 1])


def test_false_alarms_far_away_count_more():
    mask = torch.zeros(2, 1, 40, 40)
    mask[..., :8, :8] = 1
    probability = mask.clone()
    probability[0, 0, 8:12, :4] = 1
    probability[1, 0, 36:, 36:] = 1
    near, far = WeightedFMeasure()(probability, mask).flatten().tolist()
    assert 0 < far < near < 1
