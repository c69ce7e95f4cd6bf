import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.metrics import ConfusionMatrixMetric, DiceMetric, MeanIoU

from lightmuseg.data import ClassMapsd
from lightmuseg.handlers import PerClassMetric

NAMES = ("tumor", "stroma")


def items(count=4, seed=0):
    """Class indices of truth and prediction, the truth with 255, and the logits that give the prediction."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (count, 1, 9, 8))
    truth[0][truth[0] == 2] = 0
    truth[rng.random(truth.shape) < 0.2] = 255
    predicted = rng.integers(0, 3, truth.shape)
    logits = 5.0 * (predicted == np.arange(3).reshape(1, 3, 1, 1))
    return truth, predicted, torch.from_numpy(logits).float()


def scored(metric, truth, logits, names=NAMES):
    """The metrics of an engine that goes over the images one by one."""
    outputs = [ClassMapsd()({"pred": p, "label": torch.from_numpy(t).float()}) for p, t in zip(logits, truth)]
    engine = Engine(lambda engine, output: output)
    handler = PerClassMetric(metric, names, output_transform=lambda o: ([o["pred"]], [o["label"]]), save_details=False)
    handler.attach(engine, "val")
    return engine.run(outputs).metrics


def counts(truth, predicted, index):
    kept = truth != 255
    true, found = (truth == index)[kept], (predicted == index)[kept]
    return (true & found).sum(), true.sum(), found.sum()


def test_pooled_dice_of_each_class_counts_all_annotated_pixels():
    truth, predicted, logits = items()
    metric = ConfusionMatrixMetric(
        include_background=False, metric_name="f1 score", reduction="sum_batch", ignore_index=255
    )
    values = scored(metric, truth, logits)
    for index, name in enumerate(NAMES, start=1):
        both, true, found = counts(truth, predicted, index)
        assert values[f"val_{name}"] == pytest.approx(2 * both / (true + found), rel=1e-5)
    assert values["val"] == pytest.approx((values["val_tumor"] + values["val_stroma"]) / 2)


@pytest.mark.parametrize("kind", [DiceMetric, MeanIoU])
@pytest.mark.parametrize("ignore_empty", [True, False])
def test_means_over_images_leave_out_images_without_the_class_only_if_told(kind, ignore_empty):
    truth, predicted, logits = items()
    metric = kind(include_background=False, reduction="none", ignore_empty=ignore_empty, ignore_index=255)
    values = scored(metric, truth, logits)
    for index, name in enumerate(NAMES, start=1):
        expected = []
        for one_truth, one_predicted in zip(truth, predicted):
            both, true, found = counts(one_truth, one_predicted, index)
            if true == 0 and ignore_empty:
                continue
            expected.append(2 * both / (true + found) if kind is DiceMetric else both / (true + found - both))
        assert values[f"val_{name}"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_class_that_is_nowhere_has_no_value_and_is_left_out_of_the_mean():
    truth, _, logits = items()
    truth[truth == 2] = 0
    metric = DiceMetric(include_background=False, reduction="none", ignore_index=255)
    values = scored(metric, truth, logits)
    assert math.isnan(values["val_stroma"])
    assert values["val"] == values["val_tumor"]


def test_one_class_has_one_number():
    truth, predicted, _ = items()
    truth[truth == 2], predicted = 0, (predicted == 1).astype(int)
    logits = torch.from_numpy(np.where(predicted == 1, 3.0, -3.0))
    metric = ConfusionMatrixMetric(metric_name="f1 score", reduction="sum_batch", ignore_index=255)
    values = scored(metric, truth, logits, ["tumor"])
    both, true, found = counts(truth, predicted, 1)
    assert values == {"val": pytest.approx(2 * both / (true + found), rel=1e-5)}
