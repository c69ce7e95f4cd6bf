"""A network for inference in bfloat16 that loses little of what its weights say."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from lightmuseg.networks.fold import PROBE, fold

# Of a channel's variance, how much all pixels under a kernel share.
SHARED_VARIANCE = 0.9
# Terms of a sum up to which its weights are chosen: 960 are those of MobileNetV2's widest 1x1.
MAX_TERMS = 1024
# weights of a sum that are moved away from the nearest number at most; 960 gain nothing more
MAX_MOVED = 16
# points that stand for a normal distribution
QUANTILES = 1001


class Moments(NamedTuple):
    """Mean and variance of each channel of what a convolution takes, double [C]."""

    mean: torch.Tensor
    variance: torch.Tensor


def fold_for_bfloat16(network: nn.Module) -> nn.Module:
    """A copy as of :func:`.fold`, whose weights are rounded to bfloat16 so that their errors and the biases' cancel.

    bfloat16 has 8 binary digits. The nine weights of a depthwise convolution lie on almost equal pixels, so that their
    errors add up to one of the channel's scale; and the error of a bias, which runtimes round too, is one of its mean,
    which all later layers take for a feature of the picture. So each weight is rounded up or down [1]_ such that the
    output's expected squared error is small: with e_ij the error of the weight of channel i and place j under the
    kernel, d the bias's, m_i and v_i the channel's mean and variance, and r the share of v that all pixels under the
    kernel have in common, (sum m_i e_ij + d)^2 + sum_i v_i (r (sum_j e_ij)^2 + (1 - r) sum_j e_ij^2). Mean and variance
    are what the batch norms before it state [2]_; no data are needed. Convolutions that follow none, and those of more
    than 1024 terms, whose errors cancel by themselves, are left to the runtime.

    Args:
        network: as it was trained, with its batch norms; it stays as it is.

    References:
        .. [1] Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020.
        .. [2] Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
           section 4.2.
    """
    inputs = moments_of_inputs(network)
    folded = fold(network)
    for name, module in folded.named_modules():
        if isinstance(module, nn.Conv2d) and name in inputs and module.weight[0].numel() <= MAX_TERMS:
            _round(module, inputs[name])
    return folded


def moments_of_inputs(network: nn.Module) -> dict[str, Moments]:
    """By names of convolutions; pixels are normalised to the mean 0 and the variance 1.

    In a run on two pictures each batch norm gives the mean that its output has in training as the first, the variance
    as the second, and everything else acts on them: a sum of two features has the sum of both, as of independent ones.
    What no batch norm states is NaN until the next one.
    """
    watched = copy.deepcopy(network).cpu().double().eval()
    found: dict[str, Moments] = {}
    norms: dict[int, tuple[torch.Tensor, nn.BatchNorm2d]] = {}

    def state(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor | None:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            return torch.full_like(made, torch.nan)
        if isinstance(module, nn.BatchNorm2d):
            norm, activation = module, nn.Identity()
        elif given and id(given[0]) in norms and made.shape == given[0].shape:
            norm, activation = norms[id(given[0])][1], module
        else:
            return None
        stated = torch.stack(moments(norm, activation))[:, :, None, None].expand_as(made).clone()
        if norm is module:
            # the tensor is kept, so that no other gets its id
            norms[id(stated)] = stated, norm
        return stated

    def note(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def noted(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            height, width = given[0].shape[2:]
            found[name] = Moments(*given[0][:, :, height // 2, width // 2].clone())

        return noted

    convolutions = {name: module for name, module in watched.named_modules() if isinstance(module, nn.Conv2d)}
    for name, module in convolutions.items():
        module.register_forward_pre_hook(note(name))
    for module in watched.modules():
        if not list(module.children()):
            module.register_forward_hook(state)
    name, first = next(iter(convolutions.items()))
    with torch.inference_mode():
        watched(torch.full((2, first.in_channels, PROBE, PROBE), torch.nan, dtype=first.weight.dtype))
    known = {name: one for name, one in found.items() if torch.stack(one).isfinite().all()}
    return {**known, name: Moments(torch.zeros(first.in_channels), torch.ones(first.in_channels))}


def moments(norm: nn.BatchNorm2d, activation: nn.Module) -> Moments:
    """Of what an activation makes of a batch norm's output, as of a normal distribution."""
    places = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    normal = math.sqrt(2) * torch.erfinv(2 * places - 1)
    with torch.inference_mode():
        mean, deviation = (one.double()[:, None] for one in (norm.bias, norm.weight))
        values = activation(mean + deviation * normal)
    return Moments(values.mean(1), values.var(1, unbiased=False))


def _round(module: nn.Conv2d, inputs: Moments) -> None:
    """Round a convolution's weights to the nearest numbers, and then move, one by one, that which lowers the cost most.

    The bias is left as it is.
    """
    # [out, in, places]; of a grouped convolution, each output has its own inputs
    weights = module.weight.detach().double().flatten(2)
    group = torch.arange(len(weights)) // (len(weights) // module.groups)
    mean, variance = (one.double().view(module.groups, -1)[group][..., None] for one in inputs)
    bias = torch.zeros(len(weights)) if module.bias is None else module.bias.detach()
    bias_error = (_nearest(bias) - bias).double()[:, None, None]
    error = _nearest(weights) - weights
    shared, own = SHARED_VARIANCE * variance, (1 - SHARED_VARIANCE) * variance
    rows = torch.arange(len(weights))
    for _ in range(MAX_MOVED):
        # what each weight's move to its other neighbour would change of the cost
        step = torch.where(error > 0, -1, 1) * _ulp(weights + error)
        shift = (mean * error).sum((1, 2), keepdim=True) + bias_error
        total = error.sum(2, keepdim=True)
        change = (
            mean * step * (2 * shift + mean * step)
            + shared * step * (2 * total + step)
            + own * step * (2 * error + step)
        ).flatten(1)
        least, index = change.min(1)
        better = least < 0
        if not better.any():
            break
        moved = error.flatten(1)
        moved[rows[better], index[better]] += step.flatten(1)[rows[better], index[better]]
        error = moved.view_as(error)
    with torch.no_grad():
        module.weight.copy_((weights + error).view_as(module.weight))


def _nearest(values: torch.Tensor) -> torch.Tensor:
    """The nearest numbers in bfloat16, in the precision of the values."""
    return values.to(torch.bfloat16).to(values.dtype)


def _ulp(values: torch.Tensor) -> torch.Tensor:
    """Distance of numbers in bfloat16, which have 8 binary digits, from the next larger one; 0 for 0."""
    return torch.where(values == 0, 0, torch.exp2(torch.frexp(values).exponent.double() - 8))
