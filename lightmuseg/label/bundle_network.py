"""The bundle's network with one version of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from lightmuseg.networks.weights import load_weights
from lightmuseg.provenance import sha256_of
from lightmuseg.runtimes import NormalisedNetwork, Runtime
from lightmuseg.slides.bundle_config import configured

# share of channels, for Monte Carlo dropout in a network that was trained without
DROPOUT = 0.2


class BundleNetwork:
    """A network as a bundle's configs declare it, for one file of weights.

    Args:
        bundle: the bundle's root.
        weights: a state dict.
        variants: names of configs that go before, such as ``multiclass``, as the weights were trained with.

    Attributes:
        sha256: of the weights.
        class_names: of the indices from 1.
        codes: BCSS codes of each class.
        mpp: um/px that the network was trained at.
        tile_size: side of its tiles.

    Raises:
        InputError: for a bundle or weights that are not there or do not fit.
    """

    def __init__(self, bundle: Path, weights: Path, variants: Sequence[str] = ()) -> None:
        self.bundle, self.weights, self.variants = bundle, weights, tuple(variants)
        self.sha256 = sha256_of(weights)
        # without slides nothing can be proven, so PyTorch runs it
        self._config = self.configured("inference_wsi", runtime="torch")
        self.class_names: tuple[str, ...] = tuple(self._value("class_names"))
        self.codes: dict[str, list[int]] = {name: list(codes) for name, codes in self._value("classes").items()}
        self.mpp: float = self._value("mpp")
        self.tile_size: int = self._value("tile_size")
        self.overlap: float = self._value("overlap")
        self.batch_size: int = self._value("batch_size")
        self.device: torch.device = self._value("device")

    def configured(self, *names: str, **values: Any) -> ConfigParser:
        """The bundle's configs of these names, with the variants', and values of keys at the top."""
        paths = [self.bundle / "configs" / f"{name}.json" for name in (*names, *self.variants)]
        return configured(paths, self.bundle, values)

    def _value(self, name: str) -> Any:
        return self._config.get_parsed_content(name)

    @cached_property
    def runtime(self) -> Runtime:
        """The network with its weights, as the slide engine runs it."""
        load_weights(self._value("network"), self.weights)
        runtime: Runtime = self._value("runtime_def")
        return runtime

    @cached_property
    def stochastic(self) -> NormalisedNetwork:
        """A copy of the network whose dropout can be left on: that of the config, 0.2 where it has none."""
        config = self.configured("inference_wsi", dropout=self._value("dropout") or DROPOUT)
        network: torch.nn.Module = config.get_parsed_content("network")
        load_weights(network, self.weights)
        return NormalisedNetwork(network).to(self.device).eval()

    def describe(self) -> Mapping[str, Any]:
        """Plain values for records and for clients."""
        return {"weights_sha256": self.sha256, "classes": list(self.class_names), "mpp": self.mpp}
