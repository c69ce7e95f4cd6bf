"""The tiles that a runtime is proven on."""

from dataclasses import replace

import numpy as np
import tifffile

from lightmuseg.slides import Options
from lightmuseg.slides.sample_tiles import TAKEN, sample_tiles
from lightmuseg.wsi.readers.opening import open_slide


def slide_with_structure_at(path, x, y):
    pixels = np.full((900, 1100, 3), 240, np.uint8)
    pixels[y : y + 128, x : x + 128] = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    tifffile.imwrite(
        path, pixels, tile=(256, 256), photometric="rgb", resolution=(40000, 40000), resolutionunit="CENTIMETER"
    )
    return path


def test_tiles_of_most_structure_come_first(tmp_path):
    slide = slide_with_structure_at(tmp_path / "a.tif", 810, 515)
    tiles = sample_tiles([str(slide)], Options(output_dir=tmp_path, class_names=("tumor",)), 128)
    assert tiles.shape == (TAKEN, 128, 128, 3)
    assert tiles[0].std() > 50
    assert [tile.std() for tile in tiles] == sorted((tile.std() for tile in tiles), reverse=True)


def test_slides_that_cannot_be_read_are_passed_over(tmp_path):
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing")
    options = Options(output_dir=tmp_path, class_names=("tumor",))
    assert sample_tiles([str(tmp_path / "broken.tif"), str(tmp_path / "absent.tif")], options, 128).shape[0] == 0
    good = slide_with_structure_at(tmp_path / "a.tif", 0, 0)
    assert len(sample_tiles([str(tmp_path / "broken.tif"), str(good)], options, 128)) == TAKEN


def test_a_slide_at_which_a_library_fails_is_said_and_the_next_is_tried(tmp_path, monkeypatch, caplog):
    good, bad = (slide_with_structure_at(tmp_path / name, 0, 0) for name in ("a.tif", "b.tif"))

    def opened(path, *rest, **options):
        if path == bad:
            raise IndexError("a bug")
        return open_slide(path, *rest, **options)

    monkeypatch.setattr("lightmuseg.slides.sample_tiles.open_slide", opened)
    options = Options(output_dir=tmp_path, class_names=("tumor",))
    assert len(sample_tiles([str(bad), str(good)], options, 128)) == TAKEN
    assert caplog.messages == [f"{bad}: no tiles were taken of it (a bug)"]


def test_each_slide_is_read_at_its_own_um_per_pixel(tmp_path, write_plain_slide):
    slide = str(write_plain_slide(tmp_path / "a.tif", 1, 900))
    options = Options(output_dir=tmp_path, class_names=("tumor",), slide_mpp=0.25)
    alone = sample_tiles([slide], options, 128)
    expected = sample_tiles([slide], replace(options, slide_mpp=0.5), 128)
    assert not np.array_equal(alone, expected)
    assert np.array_equal(sample_tiles([(str(tmp_path / "absent.tif"), 0.3), (slide, 0.5)], options, 128), expected)
    assert np.array_equal(sample_tiles([(slide, None)], options, 128), alone)
