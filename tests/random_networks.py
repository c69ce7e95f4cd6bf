"""Networks as after some training, and how much their outputs differ."""

import torch
from torch import nn


def by_chance(network, seed):
    """The network with weights and statistics as after some training, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.3, 1.7), (module.bias, -0.5, 0.5), (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.2, 2.0),
            ):  # fmt: skip
                values.data.uniform_(low, high, generator=generator)
    return network.eval()


def difference(network, folded, image):
    """The greatest difference of outputs, as a share of their greatest size."""
    with torch.inference_mode():
        expected, given = network(image), folded(image)
    assert given.shape == expected.shape
    assert expected.std() > 0
    return ((given - expected).abs().max() / expected.abs().max()).item()
