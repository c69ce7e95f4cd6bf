import numpy as np
import pytest
import torch

from lightmuseg.losses import DiceCrossEntropyLoss


def reference(logits, target, smooth=1e-5):
    """Dice over softmax plus mean cross-entropy over the annotated pixels, in double, from the formulas."""
    logits, target = logits.astype(float), target[:, 0].astype(int)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    valid = target != 255
    entropy, dices = [], []
    for image, indices, kept in zip(p, target, valid):
        entropy += list(-np.log(image[:, kept])[indices[kept], np.arange(kept.sum())])
        for index, channel in enumerate(image):
            truth = (indices == index)[kept]
            both, total = (channel[kept] * truth).sum(), channel[kept].sum() + truth.sum()
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
@pytest.mark.parametrize("value", [0, 3, 255])
def test_uniform_masks_give_finite_loss_and_gradient(value, dtype):
    logits = (100 * torch.randn(2, 5, 8, 8)).to(dtype).requires_grad_()
    loss = DiceCrossEntropyLoss()(logits, torch.full((2, 1, 8, 8), float(value)))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert value != 255 or (loss.item() == 0 and not logits.grad.any())


@pytest.mark.parametrize(("logits", "target"), [((1, 1, 4, 4), (1, 1, 4, 4)), ((1, 5, 4, 4), (1, 5, 4, 4))])
def test_shapes_that_do_not_match_are_refused(logits, target):
    with pytest.raises(ValueError, match="need a target"):
        DiceCrossEntropyLoss()(torch.zeros(logits), torch.zeros(target))
