"""The bundle's network with one version of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightmuseg.runtimes import NormalisedNetwork, Runtime
from lightmuseg.slides.bundle_config import configured, make_segmenter

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

# share of channels, for Monte Carlo dropout in a network that was trained without
DROPOUT = 0.2
# what a card says of the training, beside classes and network
TRAINED_BY = ("ignored_codes", "merged_codes", "mpp", "tile_size", "image_mean", "image_deviation")


class BundleNetwork:
    """A network as a bundle's configs declare it, for one file of weights.

    Args:
        bundle: the bundle's root.
        weights: a ``model.pt``.
        variants: names of configs that replace keys: those that the weights were trained with, whose loss a further
            training takes; by default multiclass for weights of several classes, none for others.
        label_codes: BCSS codes by class name, of the classes that the indices of label images count; by default the
            network's own.

    Attributes:
        class_names: of the indices from 1.
        codes: BCSS codes of each class.
        label_codes: as given.
        mpp: um/px that the network was trained at.
        tile_size: side of its tiles.

    Raises:
        InputError: for a bundle or weights that are not there or do not fit.
    """

    def __init__(
        self,
        bundle: Path,
        weights: Path,
        variants: Sequence[str] = (),
        label_codes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.bundle, self.weights = bundle, weights
        # without slides nothing can be proven, so PyTorch runs it
        values = {"checkpoint": weights, "runtime": "torch"}
        self._segmenter = make_segmenter(values, bundle, self._configs(variants))
        self._model, options = self._segmenter.model, self._segmenter.options
        card = self._model.card
        self.sha256, self.class_names, self.codes = self._model.sha256, card.class_names, dict(card.classes)
        self.variants = tuple(variants) or (("multiclass",) if card.channels > 1 else ())
        self.label_codes = dict(label_codes or self.codes)
        self.mpp, self.tile_size = card.mpp, card.tile_size
        self.overlap, self.batch_size, self.device = options.overlap, options.batch_size, self._segmenter.device

    def _configs(self, names: Sequence[str]) -> list[Path]:
        return [self.bundle / "configs" / f"{name}.json" for name in names]

    def training(self, **values: Any) -> ConfigParser:
        """The bundle's train.json with the variants, of what the network is, with values of keys at the top."""
        card = self._model.card
        own = {name: getattr(card, name) for name in TRAINED_BY}
        own |= {"classes": self.codes, **{k: v for k, v in card.network.items() if k in ("backbone", "msffm")}}
        return configured(self._configs(("train", *self.variants)), self.bundle, {**own, **values})

    @cached_property
    def runtime(self) -> Runtime:
        """The network with its weights, as the slide engine runs it."""
        return self._segmenter.runtime()

    @cached_property
    def stochastic(self) -> NormalisedNetwork:
        """A copy of the network whose dropout can be left on: that of its card, 0.2 where it has none."""
        network = self._model.network(by_imagenet=True, dropout=self._model.card.network.get("dropout") or DROPOUT)
        return NormalisedNetwork(network).to(self._segmenter.device).eval()

    def describe(self) -> Mapping[str, Any]:
        """Plain values for records and for clients."""
        return {"weights_sha256": self.sha256, "classes": list(self.class_names), "mpp": self.mpp}
