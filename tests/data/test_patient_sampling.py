from collections import Counter

import pytest
import torch

from lightmuseg.data import tile_sampler
from lightmuseg.errors import InputError

TILES = (
    [{"source": "bcss", "patient": "A", "roi": f"a{n}"} for n in range(30)]
    + [{"source": "bcss", "patient": "B", "roi": f"b{n}"} for n in range(3)]
    + [{"source": "camelyon", "patient": f"C{n}", "roi": f"c{n}"} for n in range(5)]
    + [{"source": "glass", "patient": "slide", "roi": "g"}]
)  # fmt: skip


def drawn(sampler):
    torch.manual_seed(0)
    return [TILES[index] for index in sampler]


def test_sources_come_by_weight_patients_and_tiles_alike():
    tiles = drawn(tile_sampler(TILES, 40_000, {"bcss": 1.0, "camelyon": 0.5, "glass": 0}))
    assert len(tiles) == 40_000
    shares = {key: Counter(tile[key] for tile in tiles) for key in ("source", "patient", "roi")}
    expected = {
        "source": {"bcss": 2 / 3, "camelyon": 1 / 3},
        "patient": {"A": 1 / 3, "B": 1 / 3, **{f"C{n}": 1 / 15 for n in range(5)}},
        "roi": {**{f"a{n}": 1 / 90 for n in range(30)}, **{f"b{n}": 1 / 9 for n in range(3)}},
    }
    for key, values in expected.items():
        for name, share in values.items():
            assert shares[key][name] / 40_000 == pytest.approx(share, rel=0.15), name
    assert "glass" not in shares["source"]


def test_a_source_without_a_weight_counts_once():
    sources = Counter(tile["source"] for tile in drawn(tile_sampler(TILES, 10_000, {"bcss": 2.0})))
    assert [sources[name] / 10_000 for name in ("bcss", "camelyon", "glass")] == pytest.approx([0.5, 0.25, 0.25], 0.1)


def test_without_a_number_every_tile_is_shown_once():
    assert tile_sampler(TILES, None) is None


def test_a_name_that_is_not_in_the_dataset_is_said(caplog):
    tile_sampler(TILES, 10, {"camelyn": 1.0})
    assert "sample_weights names camelyn" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((None, {"bcss": 1.0}), "--sample_weights needs .* give --epoch_tiles"),
        ((0, {}), "--epoch_tiles 0: "), ((2.5, {}), "--epoch_tiles 2.5: "), ((True, {}), "--epoch_tiles True: "),
        ((5, {"bcss": -1}), "bcss has the weight -1"), ((5, {"bcss": float("nan")}), "bcss has the weight nan"),
        ((5, {"bcss": "much"}), "bcss has the weight much"),
        ((5, {"bcss": 0, "camelyon": 0, "glass": 0}), "leaves out every training tile"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        tile_sampler(TILES, *options)
