import numpy as np
import pytest
import torch
from PIL import Image

from lightmuseg.data import RandGlassd
from lightmuseg.data.bcss import CODES, Region
from lightmuseg.data.glass_pasting import EDGE_WIDTHS, SHARES
from lightmuseg.data.tiles import Cut, Tiling, write_dataset

SIZE = 96
GLASS, TISSUE = 240, 100


def prepared(folder, *names):
    """A dataset of a tile of tissue, and of one of glass whose region fills half of it."""
    folder.mkdir()
    cuts = []
    for name in names:
        value, width = (GLASS, SIZE // 2) if name == "glass" else (TISSUE, SIZE)
        Image.fromarray(np.full((SIZE, width, 3), value, np.uint8)).save(folder / f"{name}.png")
        Image.fromarray(np.ones((SIZE, width), np.uint8)).save(folder / f"{name}_mask.png")
        files = folder / f"{name}.png", folder / f"{name}_mask.png"
        cuts.append(Cut(Region(name, name, *files, None, None, 0.5, source=name), "train"))
    write_dataset(cuts, folder / "dataset", {}, Tiling(tile_size=SIZE))
    return folder / "dataset"


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("glass") / "both", "tissue", "glass")


def sample():
    return {"image": torch.full((3, SIZE, SIZE), TISSUE / 255), "label": torch.ones(1, SIZE, SIZE)}


def test_image_is_glass_where_the_label_is_other(tiles):
    transform = RandGlassd(["image", "label"], tiles, 1.0).set_random_state(0)
    shares, soft = [], []
    for _ in range(60):
        result = transform(sample())
        image, label = result["image"] * 255, result["label"][0]
        assert set(label.unique().tolist()) == {1, CODES["other"]}
        pasted = label == CODES["other"]
        shares.append(pasted.float().mean().item())
        middle = (GLASS + TISSUE) / 2
        assert (image[:, pasted] >= middle - 0.1).all()
        assert (image[:, ~pasted] <= middle + 0.1).all()
        # of the glass tile's own region alone, not of the white beside it
        assert image.max() < GLASS + 0.1
        soft.append(((image[0] > TISSUE + 1) & (image[0] < GLASS - 1)).float().mean().item())
    assert SHARES[0] - 0.01 < min(shares) < 0.2
    assert 0.5 < max(shares) < SHARES[1] + 0.01
    # the soft edge is a line, not a region
    assert 0 < np.median(soft) < 4 * EDGE_WIDTHS[1] / SIZE


def test_given_sample_is_kept_and_the_seed_decides(tiles):
    given = sample()
    results = [RandGlassd(["image", "label"], tiles, 1.0).set_random_state(seed)(given) for seed in (3, 3, 4)]
    assert torch.equal(given["image"], sample()["image"])
    assert torch.equal(results[0]["image"], results[1]["image"])
    assert not torch.equal(results[0]["image"], results[2]["image"])


def test_probability_is_that_of_tiles_with_glass(tiles):
    transform = RandGlassd(["image", "label"], tiles, 0.3).set_random_state(0)
    pasted = [bool((transform(sample())["label"] != 1).any()) for _ in range(200)]
    assert 0.2 < np.mean(pasted) < 0.4


def test_without_glass_tiles_nothing_is_pasted_and_a_warning_says_so(tmp_path, caplog):
    transform = RandGlassd(["image", "label"], prepared(tmp_path / "one", "tissue"), 1.0)
    assert "no training tile is of the source 'glass'" in caplog.text
    assert torch.equal(transform(sample())["label"], sample()["label"])


def test_keys_are_an_image_and_its_label(tiles):
    with pytest.raises(ValueError, match="an image and its label"):
        RandGlassd(["image"], tiles)
