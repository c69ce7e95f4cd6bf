import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from lightmuseg.losses import StructureLoss


def reference(logits, target, window=31, border_weight=5.0, ignore_index=255):
    """Weighted BCE + weighted IoU of PraNet, map by map in double, from the formula."""
    losses = []
    for logit, mask in zip(logits.reshape(-1, *logits.shape[2:]), target.reshape(-1, *target.shape[2:])):
        valid = mask != ignore_index
        mask = (mask == 1).astype(float)
        weight = 1 + border_weight * np.abs(uniform_filter(mask, window, mode="constant") - mask)
        p = 1 / (1 + np.exp(-logit.astype(float)))
        w, p, m = weight[valid], p[valid], mask[valid]
        bce = np.sum(w * -(m * np.log(p) + (1 - m) * np.log(1 - p))) / np.sum(w)
        both, either = np.sum(w * p * m), np.sum(w * (p + m))
        losses.append(bce + 1 - (both + 1) / (either - both + 1))
    return np.mean(losses)


def example(shape=(2, 2, 40, 36), ignored=0.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=shape).astype(np.float32)
    blobs = uniform_filter(rng.normal(size=shape), (0, 0, 7, 7), mode="nearest")
    target = (blobs > 0).astype(np.float32)
    target[rng.random(shape) < ignored] = 255
    return logits, target


@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("options", [{}, {"window": 5}, {"border_weight": 0.0}, {"window": 1}], ids=str)
def test_loss_is_its_formula(options, ignored):
    logits, target = example(ignored=ignored)
    loss = StructureLoss(**options)(torch.from_numpy(logits), torch.from_numpy(target))
    assert loss.item() == pytest.approx(reference(logits, target, **options), rel=1e-5)


def test_window_wider_than_the_image():
    logits, target = example((1, 1, 9, 12))
    loss = StructureLoss()(torch.from_numpy(logits), torch.from_numpy(target))
    assert loss.item() == pytest.approx(reference(logits, target), rel=1e-5)


def test_lone_pixel_weighs_six_times_and_one_far_from_it_once():
    target = torch.zeros(1, 1, 64, 64)
    target[..., 31, 31] = 1
    logits = torch.zeros(1, 1, 64, 64, requires_grad=True)
    StructureLoss()(logits, target).backward()
    # by hand, with p = 1/2 everywhere: d(BCE)/dz = w (p - m) / total; the IoU loss is 1 - (I + 1) / (U + 1)
    lone = 1 + 5 * 960 / 961
    total = lone + 960 * (1 + 5 / 961) + (64 * 64 - 961)
    intersection, union = lone / 2, (total + lone) / 2
    far = 0.5 / total + 0.25 * (intersection + 1) / (union + 1) ** 2
    assert logits.grad[0, 0, 60, 60].item() == pytest.approx(far, rel=1e-4)
    assert logits.grad[0, 0, 31, 31].item() == pytest.approx(-lone * (0.5 / total + 0.25 / (union + 1)), rel=1e-4)


def test_gradient_equals_central_differences():
    logits, target = example((1, 1, 5, 6), ignored=0.2)
    leaf = torch.from_numpy(logits).requires_grad_()
    StructureLoss(window=3)(leaf, torch.from_numpy(target)).backward()
    step = 1e-5
    expected = np.zeros(logits.shape)
    for index in np.ndindex(logits.shape):
        up, down = logits.astype(float), logits.astype(float)
        up[index] += step
        down[index] -= step
        expected[index] = (reference(up, target, window=3) - reference(down, target, window=3)) / (2 * step)
    np.testing.assert_allclose(leaf.grad.numpy(), expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("value", [-1e4, 1e4, float("inf"), float("-inf")])
def test_ignored_pixels_change_nothing_whatever_their_logits(value):
    logits, target = example(ignored=0.3)
    others = np.where(target == 255, np.float32(value), logits)
    results = []
    for values in (logits, others):
        leaf = torch.from_numpy(values).requires_grad_()
        loss = StructureLoss()(leaf, torch.from_numpy(target))
        loss.backward()
        results.append((loss.item(), leaf.grad))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[1][1], results[0][1])
    assert (results[1][1][torch.from_numpy(target) == 255] == 0).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 255.0], ids=["empty", "full", "ignored"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("logit", [-300.0, 0.0, 300.0])
def test_uniform_masks_give_finite_loss_and_gradient(value, dtype, logit):
    logits = torch.full((2, 1, 40, 40), logit, dtype=dtype, requires_grad=True)
    loss = StructureLoss()(logits, torch.full((2, 1, 40, 40), value))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_map_without_annotation_adds_no_loss():
    logits, target = example((2, 1, 40, 36))
    alone = StructureLoss()(torch.from_numpy(logits[:1]), torch.from_numpy(target[:1])).item()
    target[1] = 255
    both = StructureLoss()(torch.from_numpy(logits), torch.from_numpy(target)).item()
    assert both == pytest.approx(alone / 2, rel=1e-5)


def test_half_precision_logits_are_computed_in_single():
    logits, target = example((1, 1, 2, 3))
    half = torch.from_numpy(logits).half()
    loss = StructureLoss()(half, torch.from_numpy(target))
    assert loss.item() == pytest.approx(reference(half.numpy(), target), rel=1e-6)


def test_perfect_prediction_is_near_zero_and_its_opposite_is_not():
    _, target = example((1, 1, 64, 64))
    target = torch.from_numpy(target)
    assert StructureLoss()((target * 2 - 1) * 30, target).item() < 1e-4
    assert StructureLoss()((1 - target * 2) * 30, target).item() > 30


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\).*\(2, 8, 8\)"):
        StructureLoss()(torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8))


@pytest.mark.parametrize("window", [0, 30, -1])
def test_even_window_is_refused(window):
    with pytest.raises(ValueError, match=f"window={window}"):
        StructureLoss(window=window)


def test_form_the_paper_prints_is_unweighted():
    logits, target = example((1, 1, 40, 36))
    p, g = 1 / (1 + np.exp(-logits.astype(float))), target.astype(float)
    bce = -np.mean(g * np.log(p) + (1 - g) * np.log(1 - p))
    # equations 11 to 13; the loss adds 1 above and below, so that an empty mask has a value
    iou = 1 - (np.sum(g * p) + 1) / (np.sum(g + p - g * p) + 1)
    loss = StructureLoss(border_weight=0)(torch.from_numpy(logits), torch.from_numpy(target))
    assert loss.item() == pytest.approx(bce + iou, rel=1e-5)


def test_gradient_in_double_equals_automatic_differences():
    logits, target = example((1, 1, 6, 5), ignored=0.2)
    small = torch.from_numpy(logits).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: StructureLoss(window=5)(x, torch.from_numpy(target)), small)
