"""Which tiles an epoch shows, and how often."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import WeightedRandomSampler

from lightmuseg.errors import InputError

logger = logging.getLogger(__name__)


def tile_sampler(
    tiles: Sequence[Mapping[str, Any]], epoch_tiles: int | None, sample_weights: Mapping[str, float] | None = None
) -> WeightedRandomSampler | None:
    """A sampler that draws ``epoch_tiles`` tiles with replacement; None where every tile is to be shown once.

    A source is drawn by its weight, 1 where it has none; within it every patient alike; of a patient every tile alike.

    Args:
        tiles: of the dataset, as :func:`.load_tiles` gives them.
        epoch_tiles: of an epoch; None for all, each once.
        sample_weights: by source; 0 leaves it out.

    Raises:
        InputError: for numbers that cannot be.

    Example:
        >>> tiles = [{"source": "a", "patient": p} for p in "xxy"] + [{"source": "b", "patient": "z"}]
        >>> tile_sampler(tiles, 100, {"a": 1.0, "b": 0.5}).weights.tolist()
        [0.25, 0.25, 0.5, 0.5]
    """
    weights = dict(sample_weights or {})
    if epoch_tiles is None:
        if weights:
            raise InputError("--sample_weights needs the number of tiles to draw in an epoch; give --epoch_tiles.")
        return None
    if type(epoch_tiles) is not int or epoch_tiles < 1:
        raise InputError(f"--epoch_tiles {epoch_tiles}: give the number of tiles of an epoch, 1 at least.")
    for source, weight in weights.items():
        if type(weight) not in (int, float) or not 0 <= weight < float("inf"):
            raise InputError(f"--sample_weights: {source} has the weight {weight}; give a number, 0 to leave it out.")
    of_tile = [(tile.get("source", ""), tile["patient"]) for tile in tiles]
    tiles_of, sources = Counter(of_tile), {source for source, _ in of_tile}
    patients_of = Counter(source for source, _ in tiles_of)
    unknown = [source for source in weights if source not in sources]
    if unknown:
        logger.warning("sample_weights names %s, of which the dataset has no training tile.", ", ".join(unknown))
    drawn = [weights.get(place[0], 1.0) / (patients_of[place[0]] * tiles_of[place]) for place in of_tile]
    if not any(drawn):
        raise InputError(f"--sample_weights {weights}: leaves out every training tile; give a weight above 0.")
    return WeightedRandomSampler(drawn, epoch_tiles)
