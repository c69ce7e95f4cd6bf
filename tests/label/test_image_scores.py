import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from lightmuseg.errors import InputError
from lightmuseg.label.image_scores import dropout_passes, mutual_information, predictive_entropy
from lightmuseg.networks import LightMuSeg


def softmaxed(*shape, axis):
    logits = np.random.default_rng(0).normal(scale=3, size=shape)
    return np.exp(logits) / np.exp(logits).sum(axis=axis, keepdims=True)


def one_hot(*classes, of):
    """[T, C, 1, 1]: passes that are certain of these classes."""
    return np.eye(of)[list(classes)][:, :, None, None]


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout2d(0.5), nn.Conv2d(8, 4, 1), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Conv2d(4, 3, 1))


@pytest.fixture
def images():
    return torch.randn(2, 3, 10, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_entropy_is_one_where_all_classes_are_alike_and_zero_where_one_is_certain(classes):
    even = np.full((classes, 1, 1), 1 / classes)
    assert predictive_entropy(even) == pytest.approx(1)
    assert predictive_entropy(one_hot(1, of=classes)[0]) == 0


def test_entropy_of_one_class_is_that_of_two():
    probability = np.array([0.0, 0.1, 0.5, 0.9, 1.0]).reshape(1, 1, 5)
    both = np.concatenate([1 - probability, probability])
    entropy = predictive_entropy(probability)
    np.testing.assert_allclose(entropy, scipy.stats.entropy(both, base=2, axis=0), atol=1e-12)
    np.testing.assert_allclose(entropy, predictive_entropy(both), atol=1e-12)
    assert entropy[0, [0, 2, 4]].tolist() == [0, 1, 0]


def test_entropy_of_several_classes_is_scipys():
    probabilities = softmaxed(5, 7, 9, axis=0)
    expected = scipy.stats.entropy(probabilities, base=5, axis=0)
    np.testing.assert_allclose(predictive_entropy(probabilities), expected, rtol=1e-12)


def test_entropy_stays_in_its_range_in_single_precision():
    probabilities = np.linspace(0, 1, 10001, dtype=np.float32).reshape(1, 1, -1)
    entropy = predictive_entropy(probabilities)
    assert entropy.dtype == np.float32
    assert np.isfinite(entropy).all()
    assert 0 <= entropy.min() <= entropy.max() <= 1 + 1e-6


def test_equal_passes_have_no_mutual_information():
    for passes in (softmaxed(4, 6, 6, axis=0), np.random.default_rng(0).random((1, 6, 6))):
        information = mutual_information(np.repeat(passes[None], 7, axis=0))
        assert information.shape == (6, 6)
        np.testing.assert_allclose(information, 0, atol=1e-12)
        assert (information >= 0).all()


def test_certain_passes_that_disagree_evenly_have_all_mutual_information():
    assert mutual_information(np.array([0.0, 1.0, 1.0, 0.0]).reshape(4, 1, 1, 1)) == pytest.approx(1)
    assert mutual_information(one_hot(0, 1, 2, of=3)) == pytest.approx(1)
    # two of four classes, evenly: log 2 / log 4
    assert mutual_information(one_hot(0, 1, of=4)) == pytest.approx(0.5)


def test_mutual_information_is_the_mean_divergence_from_the_mean():
    passes = softmaxed(6, 4, 5, 3, axis=1)
    # the same quantity written otherwise: the mean Kullback-Leibler divergence of the passes from their mean
    expected = scipy.stats.entropy(passes, passes.mean(axis=0, keepdims=True), base=4, axis=1).mean(axis=0)
    np.testing.assert_allclose(mutual_information(passes), expected, rtol=1e-9)


def test_passes_are_probabilities_that_differ_from_each_other(network, images):
    passes = dropout_passes(network, images, passes=4, seed=0)
    assert passes.shape == (4, 2, 3, 8, 10)
    assert not passes.requires_grad
    torch.testing.assert_close(passes.sum(dim=2), torch.ones(4, 2, 8, 10))
    assert not any(torch.equal(passes[0], other) for other in passes[1:])


def test_one_class_is_the_sigmoid():
    network = nn.Sequential(nn.Dropout(0.5), nn.Flatten(2), nn.Unflatten(2, (2, 2)))
    passes = dropout_passes(network, torch.ones(1, 1, 2, 2), passes=50, seed=0)
    assert passes.unique().tolist() == pytest.approx([0.5, torch.tensor(2.0).sigmoid().item()])


def test_only_the_dropout_is_random(network, images):
    mean = dropout_passes(network, images, passes=1, seed=0)
    for module in network:
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 1e-12
    with torch.no_grad():
        expected = network.eval()(images).softmax(dim=1)
    torch.testing.assert_close(dropout_passes(network, images, passes=1, seed=0)[0], expected)
    assert not torch.allclose(mean[0], expected)


def test_a_seed_gives_the_same_passes_and_leaves_the_random_state_alone(network, images):
    first = dropout_passes(network, images, passes=3, seed=5)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    assert torch.equal(dropout_passes(network, images, passes=3, seed=5), first)
    assert torch.equal(torch.rand(4), expected)
    assert not torch.equal(dropout_passes(network, images, passes=3, seed=6), first)


def test_modes_and_statistics_are_as_before(network, images):
    network.train()
    network[1].eval()
    modes = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    dropout_passes(network, images, passes=2, seed=0)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_modes_are_restored_after_an_error(network):
    network.train()
    with pytest.raises(RuntimeError):
        dropout_passes(network, torch.zeros(1, 5, 10, 10), passes=1, seed=0)
    assert all(module.training for module in network.modules())


def test_the_network_itself_takes_dropout():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 32, 32)
    network = LightMuSeg(encoder_weights=None, dropout=0.2, freeze_encoder=True).train()
    passes = dropout_passes(network, images, passes=4, seed=0)
    assert mutual_information(passes[:, 0].numpy()).mean() > 0
    assert network.training
    assert not network.encoder.training


@pytest.mark.parametrize("network", [LightMuSeg(encoder_weights=None), nn.Dropout(0.0)])
def test_a_network_without_dropout_is_refused(network):
    with pytest.raises(InputError, match=r"no dropout; give it one with dropout=0\.2"):
        dropout_passes(network, torch.zeros(1, 3, 32, 32), passes=2, seed=0)


def test_no_passes_are_refused(network, images):
    with pytest.raises(InputError, match="passes=0"):
        dropout_passes(network, images, passes=0, seed=0)
