import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from lightmuseg.metrics import EnhancedAlignmentMeasure, StructureMeasure, WeightedFMeasure

TOP, BOTTOM, LEFT, RIGHT = 3, 29, 6, 25


def example(shape=(3, 2, 32, 41), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), (torch.rand(shape, generator=generator) < 0.4).float()


def test_ignored_surroundings_equal_a_crop(pair):
    metric, reference = pair
    probability, mask = example()
    ignored = torch.full_like(mask, 255)
    ignored[..., TOP:BOTTOM, LEFT:RIGHT] = mask[..., TOP:BOTTOM, LEFT:RIGHT]
    value = metric()(probability, ignored)
    for image in range(3):
        for channel in range(2):
            crop = (slice(TOP, BOTTOM), slice(LEFT, RIGHT))
            expected = reference(probability[image, channel][crop].numpy(), mask[image, channel][crop].numpy() > 0)
            assert value[image, channel].item() == pytest.approx(expected, abs=1e-5)


def test_scattered_ignored_pixels_leave_the_alignment_of_the_others(pair):
    metric, reference = pair
    if metric is not EnhancedAlignmentMeasure:
        pytest.skip("the others depend on where a pixel is")
    probability, mask = example((1, 1, 30, 30))
    ignored = torch.rand(mask.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    value = metric()(probability, torch.where(ignored, 255.0, mask))
    others = (probability[~ignored].numpy()[None], mask[~ignored].numpy()[None] > 0)
    assert value.item() == pytest.approx(reference(*others), abs=1e-6)


def test_what_is_predicted_on_ignored_pixels_does_not_matter(pair):
    metric, _ = pair
    probability, mask = example()
    ignored = torch.rand(mask.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    mask[ignored] = 255
    other = torch.where(ignored, 1 - probability, probability)
    assert torch.equal(metric()(probability, mask), metric()(other, mask))


def test_ignored_pixels_without_foreground_leave_the_mean():
    probability, mask = example((1, 1, 12, 9))
    annotated = mask == 0
    value = StructureMeasure()(probability, torch.where(annotated, 0.0, 255.0))
    assert value.item() == pytest.approx(1 - probability[annotated].mean().item(), abs=1e-6)
    value = StructureMeasure()(probability, torch.where(annotated, 255.0, 1.0))
    assert value.item() == pytest.approx(probability[~annotated].mean().item(), abs=1e-6)


def test_image_without_annotation_is_left_out(pair):
    metric, reference = pair
    probability, mask = example((3, 1, 16, 12))
    mask[1] = 255
    ours = metric()
    value = ours(probability, mask)
    assert value.isnan().flatten().tolist() == [False, True, False]
    expected = [reference(probability[i, 0].numpy(), mask[i, 0].numpy() > 0) for i in (0, 2)]
    assert ours.aggregate().item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_other_ignore_index(pair):
    metric, _ = pair
    probability, mask = example((2, 1, 16, 12))
    mask[..., :4] = 255
    sevens = torch.where(mask == 255, 7.0, mask)
    assert torch.equal(metric()(probability, mask), metric(ignore_index=7)(probability, sevens))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float16, torch.bfloat16])
def test_masks_of_any_type(pair, dtype):
    metric, _ = pair
    probability, mask = example((2, 1, 16, 12))
    if dtype is not torch.bool:
        mask[..., :3] = 255
    assert torch.equal(metric()(probability, mask.to(dtype)), metric()(probability, mask))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(pair, dtype):
    metric, _ = pair
    probability, mask = example((2, 1, 64, 48))
    half = probability.to(dtype)
    assert torch.equal(metric()(half, mask), metric()(half.float(), mask))


def test_decollated_images_equal_a_batch(pair):
    metric, _ = pair
    probability, mask = example()
    batched, listed, traced = metric(), metric(), metric()
    batched(probability, mask)
    listed(list(probability), list(mask))
    traced([MetaTensor(p) for p in probability], [MetaTensor(m) for m in mask])
    assert batched.aggregate("none").shape == (3, 2)
    torch.testing.assert_close(listed.aggregate("none"), batched.aggregate("none"), rtol=0, atol=1e-7)
    assert type(traced.aggregate()) is torch.Tensor
    torch.testing.assert_close(traced.aggregate(), batched.aggregate(), rtol=0, atol=1e-7)


def test_images_of_other_sizes_add_up(pair):
    metric, reference = pair
    ours, expected = metric(), []
    for seed, shape in enumerate([(1, 1, 9, 14), (3, 1, 20, 8)]):
        probability, mask = example(shape, seed)
        ours(probability, mask)
        expected += [reference(p[0].numpy(), m[0].numpy() > 0) for p, m in zip(probability, mask)]
    assert ours.aggregate().item() == pytest.approx(np.mean(expected), abs=1e-5)
    ours.reset()
    ours(probability[:1], mask[:1])
    assert ours.aggregate().item() == pytest.approx(expected[1], abs=1e-5)


def test_many_large_images_equal_each_alone(pair):
    # more than a CPU takes at once
    metric, _ = pair
    probability, mask = example((3, 1, 400, 330))
    each = torch.cat([metric()(probability[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(metric()(probability, mask), each, rtol=0, atol=1e-7)


def test_inputs_are_not_written_to(pair):
    metric, _ = pair
    probability, mask = example((1, 1, 8, 8))
    mask[..., 0] = 255
    before = probability.clone(), mask.clone()
    metric()(probability, mask)
    assert torch.equal(probability, before[0])
    assert torch.equal(mask, before[1])


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan"), float("inf")])
def test_predictions_that_are_no_probabilities_are_refused(pair, bad):
    metric, _ = pair
    probability, mask = example((3, 1, 8, 8))
    probability[1, 0, 2, 3] = bad
    ours = metric()
    value = ours(probability, mask)
    assert value.isinf().flatten().tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        ours.aggregate()


def test_shapes_that_differ_are_refused(pair):
    metric, _ = pair
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\)"):
        metric()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        metric()(torch.zeros(4, 4), torch.zeros(4, 4))


def test_no_image_yet_is_refused(pair):
    with pytest.raises(ValueError, match="No images"):
        pair[0]().aggregate()


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match=str(alpha)):
        StructureMeasure(alpha=alpha)


@pytest.mark.parametrize("beta2", [0, -1.0])
def test_beta2_out_of_range_is_refused(beta2):
    with pytest.raises(ValueError, match=str(beta2)):
        WeightedFMeasure(beta2=beta2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same(pair):
    metric, _ = pair
    probability, mask = example((4, 2, 70, 90))
    # blobs far apart: in noise the nearest foreground pixel is one of several, and cuCIM may take another one
    mask[:] = 0
    mask[..., 10:30, 20:45] = 1
    mask[..., 50:61, 5:17] = 1
    mask[..., :4, :] = 255
    torch.testing.assert_close(
        metric()(probability.cuda(), mask.cuda()).cpu(), metric()(probability, mask), rtol=0, atol=1e-3
    )
