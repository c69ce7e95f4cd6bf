import numpy as np
import pytest
import torch
from monai.metrics import MAEMetric

from lightmuseg.metrics import MeanAbsoluteError


def example(shape=(3, 1, 12, 9), ignored=0.0, seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.random(shape).astype(np.float32)
    mask = (rng.random(shape) < 0.4).astype(np.float32)
    mask[rng.random(shape) < ignored] = 255
    return torch.from_numpy(probability), torch.from_numpy(mask)


def masked_mean(probability, mask):
    """One image's error by numpy, NaN without annotation."""
    error = np.ma.masked_array(np.abs(probability.double().numpy() - mask.numpy()), mask.numpy() == 255)
    return float(error.mean()) if error.count() else float("nan")


def test_equals_monais_metric_where_nothing_is_ignored():
    probability, mask = example()
    ours, monais = MeanAbsoluteError(), MAEMetric()
    ours(probability, mask)
    monais(probability, mask)
    assert ours.aggregate().item() == pytest.approx(monais.aggregate().item(), rel=1e-6)


def test_ignored_pixels_are_left_out():
    probability, mask = example(ignored=0.5)
    metric = MeanAbsoluteError()
    values = metric(probability, mask)
    expected = [masked_mean(p, m) for p, m in zip(probability, mask)]
    np.testing.assert_allclose(values[:, 0].numpy(), expected, rtol=1e-5)
    assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_other_ignore_index():
    metric = MeanAbsoluteError(ignore_index=7)
    metric(torch.tensor([[[[0.25, 0.5, 0.5]]]]), torch.tensor([[[[0.0, 7.0, 1.0]]]]))
    assert metric.aggregate().item() == 0.375


def test_image_without_annotation_is_left_out():
    probability, mask = example(ignored=0.2)
    mask[1] = 255
    metric = MeanAbsoluteError()
    metric(probability, mask)
    expected = np.mean([masked_mean(probability[0], mask[0]), masked_mean(probability[2], mask[2])])
    assert metric.aggregate().item() == pytest.approx(expected, rel=1e-5)


def test_images_of_several_calls_count_alike():
    metric = MeanAbsoluteError()
    expected = []
    for seed, images in enumerate((1, 4, 2)):
        probability, mask = example((images, 1, 6, 5), ignored=0.3, seed=seed)
        metric(probability, mask)
        expected += [masked_mean(p, m) for p, m in zip(probability, mask)]
    assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert metric.aggregate("none").shape == (7, 1)


def test_decollated_images_equal_a_batch():
    probability, mask = example(ignored=0.3)
    batched, listed = MeanAbsoluteError(), MeanAbsoluteError()
    batched(probability, mask)
    listed(list(probability), list(mask))
    assert torch.equal(batched.aggregate(), listed.aggregate())


def test_classes_are_averaged_within_an_image():
    probability, mask = example((2, 3, 8, 8))
    ours, monais = MeanAbsoluteError(), MAEMetric()
    ours(probability, mask)
    monais(probability, mask)
    assert ours.aggregate().item() == pytest.approx(monais.aggregate().item(), rel=1e-6)


def test_integer_masks_do_not_wrap_around():
    metric = MeanAbsoluteError()
    metric(torch.tensor([[[[0.25, 0.5]]]]), torch.tensor([[[[1, 255]]]], dtype=torch.uint8))
    assert metric.aggregate().item() == 0.75


def test_reset_forgets_earlier_images():
    metric = MeanAbsoluteError()
    metric(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    metric.reset()
    metric(torch.full((1, 1, 2, 2), 0.25), torch.zeros(1, 1, 2, 2))
    assert metric.aggregate().item() == 0.25


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\)"):
        MeanAbsoluteError()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))


def test_no_image_yet_is_refused():
    with pytest.raises(ValueError, match="No images"):
        MeanAbsoluteError().aggregate()
