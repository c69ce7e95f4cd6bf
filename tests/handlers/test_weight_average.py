import pytest
import torch
from torch import nn

from lightmuseg.errors import InputError
from lightmuseg.handlers import WeightAverage


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@pytest.mark.parametrize("momentum", [0.5, 0.97])
def test_average_is_its_formula_for_weights_and_statistics(momentum):
    trained = network()
    average = WeightAverage(trained, momentum)
    expected = None
    for step in range(30):
        trained(torch.randn(4, 1, 5, 5))
        with torch.no_grad():
            trained[0].weight.add_(torch.randn_like(trained[0].weight))
        state = {name: value.double() for name, value in trained.state_dict().items()}
        m = min(momentum, (1 + step) / (10 + step))
        expected = state if step == 0 else {name: m * expected[name] + (1 - m) * state[name] for name in state}
        average()
    found = average.averaged.state_dict()
    for name in ("0.weight", "0.bias", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    assert found["1.num_batches_tracked"] == 30
    assert not torch.equal(trained.state_dict()["0.weight"], found["0.weight"])


def test_state_goes_on_bit_for_bit():
    first, second = WeightAverage(network(), 0.9), WeightAverage(network(), 0.9)
    first()
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        with torch.no_grad():
            average.network[0].weight.add_(1)
        average()
    for name, value in first.averaged.state_dict().items():
        assert torch.equal(second.averaged.state_dict()[name], value), name


def test_without_momentum_it_is_the_network_itself():
    trained = network()
    average = WeightAverage(trained, 0.0)
    average()
    assert average.averaged is trained
    assert average.state_dict() == {}


@pytest.mark.parametrize("momentum", [1, -0.1, float("nan"), "0.9", None, True])
def test_momentum_that_cannot_be_is_refused(momentum):
    with pytest.raises(InputError, match=rf"\A--weight_average {momentum}: give a number"):
        WeightAverage(network(), momentum)
