import csv
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg
from lightmuseg.slides.segment import segment_slide

BUNDLE = Path(__file__).parents[2] / "bundle"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
TUMOR = (220, 38, 38)


def picture(width, height):
    """A smooth picture without any symmetry."""
    coarse = np.random.default_rng(3).integers(0, 256, (height // 30 + 2, width // 30 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def logits_of(network, pixels):
    normalised = ((pixels / 255 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None].copy()
    with torch.inference_mode():
        return network(torch.from_numpy(normalised))[0, 0].numpy()


@pytest.fixture(scope="module")
def network():
    """A random network that calls half of a picture tumor."""
    torch.manual_seed(0)
    network = LightMuSeg(encoder_weights=None).eval()
    *_, bias = (value for name, value in network.named_parameters() if name.startswith("head") and value.shape == (1,))
    with torch.no_grad():
        bias -= float(np.median(logits_of(network, picture(512, 512))))
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights ü") / "model.pt"
    torch.save(network.state_dict(), path)
    return path


def write_slide(folder, width, height, name="Schnitt ä 1.png"):
    Image.fromarray(picture(width, height)).save(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def result(weights, tmp_path_factory):
    """A small picture of 0.2 um/px, segmented."""
    folder = tmp_path_factory.mktemp("Ordner é")
    slide = write_slide(folder, 200, 150)
    output = segment_slide(slide, folder / "Ergebnis ö", BUNDLE, weights, 0.2)
    classes = np.array(Image.open(output / "classes.png"))
    return SimpleNamespace(slide=slide, output=output, classes=classes, pixels=np.array(Image.open(slide)))


def test_results_are_in_a_folder_of_the_slides_name(result):
    assert result.output == result.slide.parent / "Ergebnis ö" / "Schnitt ä 1"
    assert {path.name for path in result.output.iterdir()} == {"classes.png", "overlay.png", "areas.csv", "run.json"}
    assert list(result.output.parent.iterdir()) == [result.output]


def test_class_map_has_the_slides_size_and_a_palette(result):
    with Image.open(result.output / "classes.png") as image:
        assert image.mode == "P"
        assert image.size == (200, 150)
        assert set(np.unique(np.array(image))) == {0, 1}
        colours = np.array(image.convert("RGB"))
    assert np.array_equal(colours, np.where(result.classes[..., None] == 1, TUMOR, 255))


def test_areas_are_those_of_the_map(result):
    with open(result.output / "areas.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["other", "tumor"]
    for index, row in enumerate(rows):
        pixels = int((result.classes == index).sum())
        assert int(row["pixels"]) == pixels
        assert float(row["area_mm2"]) == pytest.approx(pixels * (0.2 / 1000) ** 2, abs=1e-6)
        assert float(row["share"]) == pytest.approx(pixels / (200 * 150), abs=1e-6)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=2e-6)


def test_overlay_colours_the_tumor_only(result):
    overlay = np.array(Image.open(result.output / "overlay.png")).astype(int)
    tumor = result.classes == 1
    assert np.array_equal(overlay[~tumor], result.pixels[~tumor])
    to_tumor = np.abs(overlay - TUMOR)[tumor].sum()
    assert to_tumor < 0.7 * np.abs(result.pixels.astype(int) - TUMOR)[tumor].sum()


def test_record_says_what_it_rests_on(result, weights):
    record = json.loads((result.output / "run.json").read_text(encoding="utf-8"))
    assert record["slide"] == "Schnitt ä 1.png"
    assert record["slide_sha256"] == hashlib.sha256(result.slide.read_bytes()).hexdigest()
    assert record["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["level0_size"] == [200, 150]
    assert (record["level0_mpp"], record["model_mpp"]) == (0.2, 0.25)


def test_one_tile_gives_the_networks_own_map(network, weights, tmp_path):
    output = segment_slide(write_slide(tmp_path, 512, 512), tmp_path / "out", BUNDLE, weights, 0.25)
    expected = logits_of(network, picture(512, 512)) > 0
    assert 0.2 < expected.mean() < 0.8
    assert np.array_equal(np.array(Image.open(output / "classes.png")), expected)


def test_coarser_slide_is_enlarged_for_the_network(network, weights, tmp_path):
    slide = write_slide(tmp_path, 256, 256)
    output = segment_slide(slide, tmp_path / "out", BUNDLE, weights, 0.5)
    with Image.open(slide) as image:
        enlarged = np.array(image.resize((512, 512), Image.Resampling.BILINEAR))
    logits = Image.fromarray(logits_of(network, enlarged)).resize((256, 256), Image.Resampling.BILINEAR)
    classes = np.array(Image.open(output / "classes.png"))
    assert 0.05 < classes.mean() < 0.95
    assert (classes == (np.array(logits) > 0)).mean() > 0.98


def test_slide_narrower_than_a_tile_keeps_its_place(network, weights, tmp_path):
    output = segment_slide(write_slide(tmp_path, 512, 128), tmp_path / "out", BUNDLE, weights, 0.25)
    padded = np.empty((512, 512, 3))
    padded[:] = MEAN * 255
    padded[192:320] = picture(512, 128)
    expected = logits_of(network, padded)[192:320] > 0
    assert 0.05 < expected.mean() < 0.95
    assert np.array_equal(np.array(Image.open(output / "classes.png")), expected)


def test_real_slide_gives_areas_in_its_own_um(data, weights, tmp_path):
    with Image.open(data / "slides" / "CMU-1-Small-Region.svs") as image:
        region = image.crop((300, 400, 556, 600)).convert("RGB")
    region.save(tmp_path / "region.tif", dpi=(50_800, 50_800))
    output = segment_slide(tmp_path / "region.tif", tmp_path / "out", BUNDLE, weights)
    assert json.loads((output / "run.json").read_text(encoding="utf-8"))["level0_mpp"] == pytest.approx(0.5)
    with open(output / "areas.csv", newline="", encoding="utf-8") as file:
        area = sum(float(row["area_mm2"]) for row in csv.DictReader(file))
    assert area == pytest.approx(256 * 200 * 0.0005**2, abs=2e-6)


def test_existing_result_is_refused_and_left_alone(result, weights):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in result.output.iterdir()}
    with pytest.raises(InputError, match=f"{result.output}: is there already"):
        segment_slide(result.slide, result.output.parent, BUNDLE, weights, 0.2)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in result.output.iterdir()} == before


def other_network(path):
    torch.save(torch.nn.Conv2d(3, 4, 1).state_dict(), path)


def two_classes(path):
    torch.save(LightMuSeg(out_channels=2, encoder_weights=None).state_dict(), path)


def no_weights(path):
    path.write_text("not weights")


def no_file(path):
    assert not path.exists()


@pytest.mark.parametrize("write", [other_network, two_classes, no_weights, no_file])
def test_wrong_weights_are_named_and_nothing_is_left(tmp_path, write):
    write(tmp_path / "wrong.pt")
    slide = write_slide(tmp_path, 64, 64)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=str(tmp_path / "wrong.pt")):
        segment_slide(slide, tmp_path / "out", BUNDLE, tmp_path / "wrong.pt", 0.25)
    assert not any((tmp_path / "out").iterdir())


def test_missing_bundle_is_refused(weights, tmp_path):
    slide = write_slide(tmp_path, 64, 64)
    with pytest.raises(InputError, match=f"{tmp_path / 'nowhere'}.*--bundle"):
        segment_slide(slide, tmp_path / "out", tmp_path / "nowhere", weights, 0.25)
    assert not (tmp_path / "out").exists()


def test_bundle_without_weights_is_refused_by_name(tmp_path):
    shutil.copytree(BUNDLE / "configs", tmp_path / "bundle" / "configs")
    slide = write_slide(tmp_path, 64, 64)
    with pytest.raises(InputError, match=str(tmp_path / "bundle" / "models" / "model.pt")):
        segment_slide(slide, tmp_path / "out", tmp_path / "bundle", None, 0.25)
    assert not (tmp_path / "out" / slide.stem).exists()


def test_bundles_own_weights_are_used(weights, result, tmp_path):
    shutil.copytree(BUNDLE / "configs", tmp_path / "bundle" / "configs")
    (tmp_path / "bundle" / "models").mkdir()
    shutil.copy(weights, tmp_path / "bundle" / "models" / "model.pt")
    output = segment_slide(result.slide, tmp_path / "out", tmp_path / "bundle", None, 0.2)
    assert np.array_equal(np.array(Image.open(output / "classes.png")), result.classes)


def test_bad_slide_leaves_nothing(weights, tmp_path):
    slide = write_slide(tmp_path, 64, 64)
    slide.write_bytes(slide.read_bytes()[:-100])
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=str(slide)):
        segment_slide(slide, tmp_path / "out", BUNDLE, weights, 0.25)
    assert not any((tmp_path / "out").iterdir())
