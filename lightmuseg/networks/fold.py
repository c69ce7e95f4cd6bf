"""A network for inference with fewer and plainer layers that gives the same results."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .msffm import MSFFM

# Side of the picture that shows which layer follows which; every encoder takes it.
PROBE = 64
# They give in evaluation mode the very tensor that they take.
PASSING = (nn.Identity, nn.Dropout, nn.Dropout2d)


def fold(network: nn.Module) -> nn.Module:
    """A copy for inference: an MSFFM's parallel convolutions and their 1x1 as one, batch norms in their convolutions.

    The parallel convolutions, zero-padded to the largest, and the 1x1 behind them are linear in their input, so their
    kernels add up: a 1x1, a 3x3 and a 5x5 are one 5x5. A batch norm in evaluation mode is a scale and a shift of each
    channel [1]_; one that follows no convolution stays. The result is equal but for rounding; heads that only training
    uses are left out.

    Args:
        network: such as a :class:`.LightMuSeg` with any encoder, on any device; it stays as it is.

    Returns:
        A copy in evaluation mode, whose parameters take no gradient. Its state dict has other names.

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


def _layers_before(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """Of each layer that which made what it takes, as a run on a black picture shows."""
    made_by: dict[int, tuple[torch.Tensor, nn.Module]] = {}
    before: dict[nn.Module, nn.Module] = {}

    def note(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        if given and id(given[0]) in made_by:
            before[module] = made_by[id(given[0])][1]
        # the tensor is kept, so that no other gets its id
        made_by[id(made)] = made, module

    layers = [one for one in network.modules() if not list(one.children()) and not isinstance(one, PASSING)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    first = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
    with torch.inference_mode():
        network(torch.zeros(1, first.in_channels, PROBE, PROBE, dtype=first.weight.dtype))
    for hook in hooks:
        hook.remove()
    return before


def _fold_batch_norms(network: nn.Module) -> None:
    """Put each batch norm into the convolution whose output it takes."""
    replaced: dict[nn.Module, nn.Module] = {}
    for module, convolution in _layers_before(network).items():
        # timm's batch norms do the activation too, by parts of their own, so that they are no layers here
        if isinstance(module, nn.BatchNorm2d) and isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d)):
            replaced[convolution] = fuse_conv_bn_eval(convolution, module, isinstance(convolution, nn.ConvTranspose2d))
            replaced[module] = nn.Identity()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if child in replaced:
                setattr(parent, name, replaced[child])
