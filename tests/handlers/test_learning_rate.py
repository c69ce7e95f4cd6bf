import pytest
import torch
from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule

from lightmuseg.errors import InputError
from lightmuseg.handlers import CosineSchedule
from lightmuseg.handlers.learning_rate import FINAL_SHARE


def optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)


def rates(epochs, length, warm_up, start=0):
    """The learning rate of each step of a training that goes on after epoch ``start``."""
    optimised = optimizer()
    seen = []
    engine = Engine(lambda engine, batch: seen.append(optimised.param_groups[0]["lr"]))
    CosineSchedule(optimised, warm_up).attach(engine)

    @engine.on(Events.STARTED)
    def go_on(engine):
        engine.state.epoch, engine.state.iteration = start, start * length

    engine.run(range(length), max_epochs=epochs)
    return seen


@pytest.mark.parametrize("warm_up", [0.0, 0.25])
def test_rates_are_those_of_monais_schedule_down_to_the_final_share(warm_up):
    found = rates(5, 8, warm_up)
    optimised, expected = optimizer(), []
    schedule = WarmupCosineSchedule(optimised, warmup_steps=int(warm_up * 40), t_total=40)
    for _ in range(40):
        expected.append(optimised.param_groups[0]["lr"])
        optimised.step()
        schedule.step()
    rising = int(warm_up * 40)
    # ours ends the rise a step earlier, so that no step is lost at a rate of 0
    assert found[:rising] == pytest.approx([0.2 * (step + 1) / max(1, rising) for step in range(rising)])
    falling = [FINAL_SHARE * 0.2 + (1 - FINAL_SHARE) * rate for rate in expected[rising:]]
    assert found[rising:] == pytest.approx(falling)
    assert found[-1] < 0.03 * 0.2


def test_resumed_training_has_the_same_rates():
    assert rates(5, 8, 0.2, start=3) == rates(5, 8, 0.2)[24:]


def test_optimizers_own_rate_survives_its_state():
    first, second = optimizer(), optimizer()
    engine = Engine(lambda engine, batch: None)
    engine.state.max_epochs, engine.state.epoch_length, engine.state.iteration = 2, 10, 15
    CosineSchedule(first)(engine)
    second.load_state_dict(first.state_dict())
    CosineSchedule(second)(engine)
    assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"] < 0.1


@pytest.mark.parametrize("warm_up", [1, -0.1, "0.1", None, True])
def test_warm_up_that_cannot_be_is_refused(warm_up):
    with pytest.raises(InputError, match=rf"\A--warm_up {warm_up}: give a share"):
        CosineSchedule(optimizer(), warm_up)
