"""Glass of real slides, pasted into tiles."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from lightmuseg.wsi.images import read_rgb

from .bcss import CODES
from .tile_manifest import load_tiles

logger = logging.getLogger(__name__)
SOURCE = "glass"
# of a tile
SHARES = (0.1, 0.6)
# of the edge, in pixels
EDGE_WIDTHS = (1.0, 3.0)


class RandGlassd(RandomizableTransform, MapTransform):
    """Replace a part of a tile, a half plane or a smooth blob with a soft edge, by glass; the label there is "other".

    The glass is taken from the dataset's own tiles of the source "glass", turned and flipped at random. Without such
    tiles nothing is pasted, and a warning says so.

    Args:
        keys: of an RGB image [3, H, W] in [0, 1] and of its label of BCSS codes [1, H, W].
        dataset_dir: what ``lightmuseg prepare`` wrote; its training tiles are used.
        prob: that a tile gets glass.

    Raises:
        InputError: where the dataset is not there or broken.
        ValueError: for a number of keys other than two.
    """

    def __init__(self, keys: KeysCollection, dataset_dir: str | Path, prob: float = 0.0) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if len(self.keys) != 2:
            raise ValueError(f"keys={self.keys} must be those of an image and its label.")
        self.tiles = load_tiles(dataset_dir, "train", SOURCE)
        self._read: dict[str, torch.Tensor] = {}
        if prob and not self.tiles:
            logger.warning("%s: no training tile is of the source 'glass', so none is pasted.", dataset_dir)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        self.randomize(None)
        if not self._do_transform or not self.tiles:
            return result
        image, label = (
            convert_to_tensor(result[key], dtype=torch.float32, track_meta=False) for key in self.key_iterator(result)
        )
        opacity = self._opacity(*image.shape[1:])
        changed = (image.lerp(self._glass(*image.shape[1:]), opacity), label.masked_fill(opacity > 0.5, CODES["other"]))
        for key, values in zip(self.keys, changed):
            result[key] = convert_to_dst_type(values, result[key], dtype=torch.float32)[0]
        return result

    def _glass(self, height: int, width: int) -> torch.Tensor:
        tile = self.tiles[self.R.randint(len(self.tiles))]
        if tile["image"] not in self._read:
            # without what fills up a region that is smaller than a tile
            inside = slice(tile["region_height"] - tile["y"]), slice(tile["region_width"] - tile["x"])
            self._read[tile["image"]] = torch.from_numpy(read_rgb(tile["image"])[inside].copy()).permute(2, 0, 1)
        glass = torch.rot90(self._read[tile["image"]], int(self.R.randint(4)), (1, 2))
        if self.R.random() < 0.5:
            glass = glass.flip(2)
        # more where it is smaller than the tile, by reflection
        rows, columns = (_reflected(wanted, have) for wanted, have in zip((height, width), glass.shape[1:]))
        return glass[:, rows][:, :, columns].float() / 255

    def _opacity(self, height: int, width: int) -> torch.Tensor:
        """Of the glass, [H, W] from 0 to 1: a random field above the level that leaves it a share of the tile."""
        if self.R.random() < 0.5:
            angle = self.R.uniform(0, 2 * np.pi)
            rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
            field = np.cos(angle) * columns + np.sin(angle) * rows
        else:
            coarse = torch.from_numpy(self.R.normal(size=(1, 1, *self.R.randint(2, 7, 2)))).float()
            field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0, 0]
        share = self.R.uniform(*SHARES)
        level = field.flatten().kthvalue(max(1, round((1 - share) * field.numel()))).values
        # in pixels from the edge, as far as the field is linear
        slope = torch.stack(torch.gradient(field)).norm(dim=0).clamp(min=1e-6)
        return ((field - level) / (slope * self.R.uniform(*EDGE_WIDTHS)) + 0.5).clamp(0, 1)


def _reflected(wanted: int, have: int) -> torch.Tensor:
    """Indices of ``have`` values that fill ``wanted`` places, there and back."""
    there_and_back = torch.arange(wanted) % (2 * have)
    return torch.minimum(there_and_back, 2 * have - 1 - there_and_back)
