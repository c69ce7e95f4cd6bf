import pytest
import torch

from lightmuseg.metrics import EnhancedAlignmentMeasure


def test_a_level_is_what_the_probability_truncates_to():
    # foreground alone: the share of thresholds at or below the level, times n / (n - 1)
    probability = torch.tensor([0.0, 0.5 / 255, 1.5 / 255, 254.9 / 255, 1.0]).view(5, 1, 1, 1).expand(5, 1, 1, 2)
    value = EnhancedAlignmentMeasure()(probability, torch.ones(5, 1, 1, 2))
    assert value.flatten().tolist() == pytest.approx([2 * (level + 1) / 256 for level in (0, 0, 1, 254, 255)])


def test_a_single_annotated_pixel_is_divided_by_one():
    mask = torch.full((2, 1, 3, 3), 255.0)
    mask[:, :, 1, 1] = torch.tensor([[0.0], [1.0]])
    value = EnhancedAlignmentMeasure()(torch.full((2, 1, 3, 3), 0.5), mask)
    # 127 is 0.5's level: at or above 128 of the 256 thresholds
    assert value.flatten().tolist() == pytest.approx([0.5, 0.5])
