"""A network for inference in bfloat16 that loses little of what its weights say."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import nn

from lightmuseg.networks.fold import fold, layers_before

# Of a channel's variance, how much all pixels under a small kernel share.
SHARED_VARIANCE = 0.9
# weights of a kernel that may be rounded away from the nearest number: 2^9 choices are looked at
MAX_MOVED = 9
# points that stand for a normal distribution
QUANTILES = 1001


class Moments(NamedTuple):
    """Mean and variance of each channel of what a convolution takes, double [C]."""

    mean: torch.Tensor
    variance: torch.Tensor


def fold_for_bfloat16(network: nn.Module) -> nn.Module:
    """A copy as of :func:`.fold`, whose weights of few terms are rounded to bfloat16 so that their errors cancel.

    bfloat16 has 8 binary digits. Where a sum has hundreds of terms, the errors of its weights cancel; the nine weights
    of a depthwise convolution lie on almost equal pixels, so that their errors add up to one of the channel's scale,
    and the bias's, which runtimes round too, to one of its mean. So each of these kernels' weights is rounded up or
    down [1]_ such that the output's expected squared error is least: with e the errors of the weights, d the bias's,
    m and v the mean and variance of the input, and r the share of v that all pixels under the kernel have in common,
    (m sum(e) + d)^2 + r v sum(e)^2 + (1 - r) v sum(e^2). Mean and variance are those of the activation of a normal
    distribution, of which the batch norm before it states mean and deviation [2]_; no data are needed. The first
    convolution's kernels are rounded in the same way, with m = 0 and v = 1, as pixels are normalised to.

    Args:
        network: as it was trained, with its batch norms; it stays as it is.

    References:
        .. [1] Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020.
        .. [2] Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
           section 4.2.
    """
    inputs = moments_of_inputs(network)
    folded = fold(network)
    first = next(module for module in folded.modules() if isinstance(module, nn.Conv2d))
    for name, module in folded.named_modules():
        if isinstance(module, nn.Conv2d) and (module is first or _is_depthwise(module)):
            _round(module, inputs.get(name))
    return folded


def _is_depthwise(module: nn.Conv2d) -> bool:
    return module.groups == module.in_channels == module.out_channels and module.weight[0].numel() >= MAX_MOVED


def moments_of_inputs(network: nn.Module) -> dict[str, Moments]:
    """By names of depthwise convolutions that take a batch norm's activation."""
    watched = copy.deepcopy(network).cpu().float().eval()
    found = {}
    before = layers_before(watched)
    for name, module in watched.named_modules():
        if isinstance(module, nn.Conv2d) and _is_depthwise(module):
            layers = [one for one in before.get(module, ()) if type(one).__module__ != nn.ConstantPad2d.__module__]
            activation = nn.Identity()
            if layers and type(layers[0]).__module__ == nn.ReLU6.__module__:
                activation = layers.pop(0)
            if layers and isinstance(layers[0], nn.BatchNorm2d):
                found[name] = moments(layers[0], activation)
    return found


def moments(norm: nn.BatchNorm2d, activation: nn.Module) -> Moments:
    """Of what an activation makes of a batch norm's output."""
    places = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    normal = math.sqrt(2) * torch.erfinv(2 * places - 1)
    with torch.inference_mode():
        mean, deviation = (one.double()[:, None] for one in (norm.bias, norm.weight))
        values = activation(mean + deviation * normal)
    return Moments(values.mean(1), values.var(1, unbiased=False))


def _round(module: nn.Conv2d, inputs: Moments | None) -> None:
    """Round a convolution's kernels, each of one input and one output channel; its bias is left as it is."""
    kernels = module.weight.detach().double().flatten(2).flatten(0, 1)
    mean, variance = inputs or (torch.zeros(len(kernels)).double(), torch.ones(len(kernels)).double())
    bias = torch.zeros(len(module.weight)) if module.bias is None else module.bias.detach()
    bias_error = (_nearest(bias) - bias).double().repeat_interleave(len(kernels) // len(bias))
    near = _nearest(kernels)
    step = torch.where(kernels > near, 1, -1) * _ulp(near)
    # those whose other neighbour is nearly as near
    free = (kernels - near).abs().div(step.abs()).topk(min(MAX_MOVED, kernels.shape[1]), dim=1).indices
    choices = torch.cartesian_prod(*[torch.arange(2)] * free.shape[1]).double()
    error = (near - kernels)[:, None] + torch.zeros(len(kernels), len(choices), kernels.shape[1]).double().scatter_add_(
        2, free[:, None].expand(-1, len(choices), -1), choices * step.gather(1, free)[:, None]
    )
    total, squares = error.sum(2), error.square().sum(2)
    mean, variance, bias_error = mean[:, None], variance[:, None], bias_error[:, None]
    cost = (mean * total + bias_error) ** 2 + variance * (SHARED_VARIANCE * total**2 + (1 - SHARED_VARIANCE) * squares)
    best = error[torch.arange(len(kernels)), cost.argmin(1)]
    with torch.no_grad():
        module.weight.copy_((kernels + best).view_as(module.weight))


def _nearest(values: torch.Tensor) -> torch.Tensor:
    """The nearest numbers in bfloat16, in the precision of the values."""
    return values.to(torch.bfloat16).to(values.dtype)


def _ulp(values: torch.Tensor) -> torch.Tensor:
    """Distance of numbers in bfloat16, which have 8 binary digits, from the next larger one."""
    return torch.exp2(torch.frexp(values).exponent.double() - 8)
