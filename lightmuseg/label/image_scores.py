"""How unsure a network is of every pixel: mutual information by Monte Carlo dropout, beside predictive entropy."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lightmuseg.classes import probabilities_of
from lightmuseg.engine.entropy import predictive_entropy
from lightmuseg.errors import InputError


def mutual_information(passes: np.ndarray) -> np.ndarray:
    """How much a network's random passes disagree on each pixel (BALD), as a share of the most they can.

    The entropy of the mean minus the mean of the entropies: 0 where all passes agree, however unsure, and 1 where each
    is certain and all classes come equally often.

    Args:
        passes: float [T, C, H, W], probabilities of T passes; C as for :func:`predictive_entropy`.

    Returns:
        [H, W] from 0 to 1.

    Reference:
        Houlsby et al., Bayesian active learning for classification and preference learning, arXiv:1112.5745, 2011;
        Gal and Ghahramani, Dropout as a Bayesian approximation, ICML 2016.
    """
    disagreement = predictive_entropy(passes.mean(axis=0)) - predictive_entropy(passes, axis=1).mean(axis=0)
    # equal passes differ by a rounding error
    return np.clip(disagreement, 0, 1)


@torch.no_grad()
def dropout_passes(network: nn.Module, images: torch.Tensor, passes: int, seed: int) -> torch.Tensor:
    """Probabilities of random passes: everything as in evaluation, but the dropout layers on.

    The network's mode and torch's random state are afterwards as they were.

    Args:
        network: gives logits [B, C, H, W].
        images: [B, channels, height, width], on the network's device.
        passes: their number T.
        seed: the same seed gives the same passes.

    Returns:
        [T, B, C, H, W]; sigmoid of one class, softmax of several.

    Raises:
        InputError: where the network has no dropout layer that drops anything, or ``passes`` is below 1.
    """
    layers = [m for m in network.modules() if isinstance(m, (nn.Dropout, nn.Dropout2d)) and m.p > 0]
    if not layers:
        raise InputError("Monte Carlo dropout: the network has no dropout; give it one with dropout=0.2.")
    if passes < 1:
        raise InputError(f"passes={passes}: Monte Carlo dropout needs at least 1.")
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        for layer in layers:
            layer.train()
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.manual_seed(seed)
            return torch.stack([probabilities_of(network(images).float(), axis=1) for _ in range(passes)])
    finally:
        for module, mode in modes.items():
            module.training = mode
