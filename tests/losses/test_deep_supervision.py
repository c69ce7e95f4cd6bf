import pytest
import torch

from lightmuseg.losses import DeepSupervisionLoss, DiceCrossEntropyLoss, StructureLoss
from lightmuseg.networks import LightMuSeg


@pytest.mark.parametrize(("loss", "classes"), [(StructureLoss(), 1), (DiceCrossEntropyLoss(), 5)])
def test_loss_is_the_sum_over_the_outputs(loss, classes):
    logits = torch.randn(2, 4, classes, 16, 16)
    target = torch.randint(0, 2, (2, 1, 16, 16)).float()
    expected = sum(loss(logits[:, output], target).item() for output in range(4))
    assert DeepSupervisionLoss(loss)(logits, target).item() == pytest.approx(expected, rel=1e-5)
    assert DeepSupervisionLoss(loss)(logits[:, 0], target) == loss(logits[:, 0], target)


def test_every_side_head_of_the_network_gets_a_gradient():
    network = LightMuSeg(encoder_weights=None, deep_supervision=True)
    loss = DeepSupervisionLoss(StructureLoss())
    loss(network(torch.randn(2, 3, 64, 64)), torch.randint(0, 2, (2, 1, 64, 64)).float()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.side_heads.parameters())
