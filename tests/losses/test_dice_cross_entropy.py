import numpy as np
import pytest
import torch

from lightmuseg.losses import DiceCrossEntropyLoss


def reference(logits, target, smooth=1e-5):
    """Dice over softmax plus mean cross-entropy over the annotated pixels, in double, from the formulas.

    A pixel "not class i" (255 - i) is one of class i's Dice and entropy alone.
    """
    logits, target = logits.astype(float), target[:, 0].astype(int)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    valid = target <= 4
    entropy, dices = [], []
    for image, indices, kept in zip(p, target, valid):
        entropy += list(-np.log(image[:, kept])[indices[kept], np.arange(kept.sum())])
        for index, channel in enumerate(image):
            not_this = (indices == 255 - index) & (index > 0)
            entropy += list(-np.log(1 - channel[not_this]))
            counted = kept | not_this
            truth = (indices == index)[counted]
            both, total = (channel[counted] * truth).sum(), channel[counted].sum() + truth.sum()
            dices.append(1 - (2 * both + smooth) / (total + smooth))
    return np.mean(dices) + np.mean(entropy)


def example(ignored=0.3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(2, 5, 12, 10)).astype(np.float32)
    target = rng.integers(0, 4, (2, 1, 12, 10)).astype(np.float32)
    target[rng.random(target.shape) < ignored] = 255
    return torch.from_numpy(logits), torch.from_numpy(target)


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_loss_is_its_formula(ignored):
    logits, target = example(ignored)
    assert DiceCrossEntropyLoss()(logits, target).item() == pytest.approx(
        reference(logits.numpy(), target.numpy()), rel=1e-5
    )


@pytest.mark.parametrize("denied", [1, 3, 4])
def test_loss_is_its_formula_where_only_is_known_what_a_pixel_is_not(denied):
    logits, target = example()
    target[:, :, ::3] = 255 - denied
    assert DiceCrossEntropyLoss()(logits, target).item() == pytest.approx(
        reference(logits.numpy(), target.numpy()), rel=1e-5
    )


def test_one_channel_is_two_of_which_the_first_is_nought():
    logits, target = example()
    logits, target = logits[:, :1], torch.where(target < 255, target % 2, target)
    two = np.concatenate([np.zeros_like(logits), logits], axis=1)
    assert DiceCrossEntropyLoss()(logits, target).item() == pytest.approx(reference(two, target.numpy()), rel=1e-5)


def test_pixels_that_are_not_of_a_class_lower_its_probability_and_leave_the_others_ratios():
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    DiceCrossEntropyLoss()(logits, torch.full((1, 1, 2, 2), 254.0)).backward()
    gradient = logits.grad[0, :, 0, 0]
    assert gradient[1] > 0
    assert gradient[0] < 0
    assert gradient[0] == pytest.approx(gradient[2].item())


def test_gradient_equals_central_differences():
    logits, target = example()
    loss = DiceCrossEntropyLoss()
    small = logits[..., :3, :3].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target[..., :3, :3]), small)


def test_ignored_pixels_change_nothing_whatever_their_logits():
    logits, target = example()
    changed = torch.where(target == 255, torch.full_like(logits, 50.0), logits)
    assert torch.allclose(DiceCrossEntropyLoss()(changed, target), DiceCrossEntropyLoss()(logits, target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0, 3, 254, 255])
def test_uniform_masks_give_finite_loss_and_gradient(value, dtype):
    logits = (100 * torch.randn(2, 5, 8, 8)).to(dtype).requires_grad_()
    loss = DiceCrossEntropyLoss()(logits, torch.full((2, 1, 8, 8), float(value)))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert value != 255 or (loss.item() == 0 and not logits.grad.any())


@pytest.mark.parametrize(("logits", "target"), [((1, 1, 4, 4), (1, 1, 4, 2)), ((1, 5, 4, 4), (1, 5, 4, 4))])
def test_shapes_that_do_not_match_are_refused(logits, target):
    with pytest.raises(ValueError, match="need a target"):
        DiceCrossEntropyLoss()(torch.zeros(logits), torch.zeros(target))
