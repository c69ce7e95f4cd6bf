"""Three lines of Python: a model, a slide, its results."""

import numpy as np
import pytest
from stand_in_networks import Dark

from lightmuseg import Segmenter
from lightmuseg.errors import InputError


@pytest.fixture
def segmenter():
    return Segmenter(runtime=Dark(), tissue_mask=False)


def test_results_are_there_in_memory_as_in_the_files(segmenter, tmp_path, write_plain_slide):
    seen = []
    slide = write_plain_slide(tmp_path / "a.tif", seed=3)
    result = segmenter(slide, tmp_path / "results", progress=lambda *words: seen.append(words))
    assert result.folder == tmp_path / "results" / "a"
    assert result.record["model"]["runtime"] == "dark"
    area = np.count_nonzero(result.classes == 1) * (result.record["map_mpp"] / 1000) ** 2
    assert result.measurements["tumor_area"] == pytest.approx(area, abs=1e-6)
    names = {feature["properties"]["classification"]["name"] for feature in result.regions["features"]}
    assert names == {"tumor"}
    assert result._repr_png_() == (result.folder / "overlay.png").read_bytes()
    assert seen[-1][0] == slide
    assert seen[-1][1] == seen[-1][2] > 0


def test_results_that_are_there_are_returned_where_a_run_is_resumed(tmp_path, write_plain_slide, caplog):
    slide = write_plain_slide(tmp_path / "a.tif", seed=3)
    batches = []
    segmenter = Segmenter(runtime=Dark(at=batches.append), tissue_mask=False, resume=True, output_dir=tmp_path)
    first, count = segmenter(slide), len(batches)
    assert segmenter(slide).record == first.record
    assert len(batches) == count
    write_plain_slide(slide, seed=4)
    assert segmenter(slide).record == first.record
    assert "the slide changed since it was done" in caplog.text


def test_a_runtime_that_could_not_be_proven_is_proven_on_the_next_slide(tmp_path, write_plain_slide):
    segmenter = Segmenter(runtime="torch", tissue_mask=False, region=(0, 0, 400, 400))
    assert segmenter.runtime().parity is None
    result = segmenter(write_plain_slide(tmp_path / "a.tif", seed=3), tmp_path / "results")
    assert result.record["parity"]["error"] < 1e-4


def test_a_picture_is_segmented_without_files(segmenter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.full((700, 500, 3), 240, np.uint8)
    pixels[200:600, 100:300] = 20
    classes = segmenter.predict(pixels, mpp=0.25)
    assert classes.shape == (700, 500)
    assert classes.dtype == np.uint8
    expected = (pixels[..., 0] < 128).astype(np.uint8)
    assert np.count_nonzero(classes != expected) < 0.01 * classes.size
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mpp", [0.1, 0.37, 0.5, 2.0])
def test_a_picture_of_another_scale_gets_a_map_of_its_own_size(segmenter, mpp):
    pixels = np.full((130, 170, 3), 240, np.uint8)
    pixels[:, 85:] = 20
    classes = segmenter.predict(pixels, mpp=mpp)
    assert classes.shape == (130, 170)
    assert (classes[:, :75] == 0).all()
    assert (classes[:, 95:] == 1).all()


def test_what_is_no_picture_is_refused(segmenter):
    with pytest.raises(InputError):
        segmenter.predict(np.zeros((10, 10), np.uint8), mpp=0.5)
    with pytest.raises(InputError):
        segmenter.predict(np.zeros((10, 10, 3), np.uint8), mpp=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"device": "gpu"}, "--device gpu"), ({"runtime": "fast"}, "--runtime fast"), ({"overlap": 0.9}, "--overlap"),
        ({"region": "1,2"}, "--region 1,2"), ({"amp": "yes"}, "--amp yes"),
        ({"model": "tumour"}, "tumour: no such weights file"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_the_network_is_loaded(monkeypatch, values, words):
    monkeypatch.setattr(Segmenter, "_load", lambda *_: pytest.fail("loads the network"))
    with pytest.raises(InputError, match=words):
        Segmenter(**values)
