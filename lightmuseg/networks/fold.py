"""A network for inference with fewer and plainer layers that gives the same results."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .msffm import MSFFM

# Side of the picture that shows which convolution a batch norm belongs to; every encoder takes it.
PROBE = 64


def fold(network: nn.Module) -> nn.Module:
    """A copy for inference: an MSFFM's parallel convolutions and their 1x1 as one, batch norms in their convolutions.

    The parallel convolutions, zero-padded to the largest, and the 1x1 behind them are linear in their input, so their
    kernels add up: a 1x1, a 3x3 and a 5x5 are one 5x5. A batch norm in evaluation mode is a scale and a shift of each
    channel [1]_. The result is equal but for rounding; heads that only training uses are left out.

    Args:
        network: such as a :class:`.LightMuSeg` with any encoder, on any device; it stays as it is.

    Returns:
        A copy in evaluation mode, whose parameters take no gradient. Its state dict has other names.

    Raises:
        ValueError: for a batch norm that follows no convolution.

    References:
        .. [1] Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
           Inference, CVPR 2018, section 3.2.
    """
    first = next(network.parameters())
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    if hasattr(folded, "side_heads"):
        folded.side_heads = nn.ModuleList()
    # sums of products of weights would lose digits
    folded = folded.cpu().double()
    for module in folded.modules():
        if isinstance(module, MSFFM):
            _fold_branches(module)
    _fold_batch_norms(folded)
    return folded.to(device=first.device, dtype=first.dtype)


def probe(network: nn.Module) -> None:
    """Run a network on a black picture, for the hooks that watch it."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.inference_mode():
        network(torch.zeros(1, first.in_channels * first.groups, PROBE, PROBE, dtype=first.weight.dtype))


def _fold_branches(module: MSFFM) -> None:
    """Make one convolution of the parallel ones and the 1x1 that fuses them."""
    branches = [branch.conv for branch in module.branches]
    fuse = module.fuse.conv
    largest = max(branch.kernel_size[0] for branch in branches)
    shares = fuse.weight[:, :, 0, 0].chunk(len(branches), dim=1)
    weight, bias = torch.zeros(()), fuse.bias.clone()
    for branch, share in zip(branches, shares):
        margin = (largest - branch.kernel_size[0]) // 2
        weight = weight + torch.einsum("om,mihw->oihw", share, F.pad(branch.weight, [margin] * 4))
        bias = bias + share @ branch.bias
    channels = fuse.out_channels
    joined = nn.Conv2d(channels, channels, largest, padding=largest // 2, dtype=weight.dtype).requires_grad_(False)
    joined.weight.copy_(weight)
    joined.bias.copy_(bias)
    module.branches, module.fuse = nn.ModuleList([joined]), nn.Identity()


def _fold_batch_norms(network: nn.Module) -> None:
    """Put each batch norm into the convolution whose output it takes, which a run of the network shows."""
    convolution_of: dict[int, tuple[torch.Tensor, nn.Module]] = {}
    pairs: dict[nn.Module, nn.Module | None] = {}

    def note_output(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        # the tensor is kept, so that no other gets its id
        convolution_of[id(made)] = made, module

    def note_input(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        pairs[module] = convolution_of.get(id(given[0]), (None, None))[1]

    hooks = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            hooks.append(module.register_forward_hook(note_output))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(note_input))
    probe(network)
    for hook in hooks:
        hook.remove()

    replaced: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            convolution = pairs.get(module)
            if convolution is None:
                raise ValueError(f"{name}: this batch norm follows no convolution.")
            replaced[convolution] = fuse_conv_bn_eval(convolution, module, isinstance(convolution, nn.ConvTranspose2d))
            replaced[module] = nn.Identity()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if child in replaced:
                setattr(parent, name, replaced[child])
