import importlib.util
import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data.bcss import CODES
from lightmuseg.errors import InputError

A0D2, A1G6 = "TCGA-A2-A0D2-DX1_xmin1_ymin2_MPP-0.2500", "TCGA-A2-A1G6-DX1_xmin3_ymin4_MPP-0.2500"


@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("make_reference_data", root / "scripts" / "make_reference_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(data, tmp_path_factory):
    """A folder as DATA is to be, of small pictures and real glass."""
    folder = tmp_path_factory.mktemp("reference") / "data"
    (folder / "slides").mkdir(parents=True)
    for slide in "CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs":
        (folder / "slides" / slide).symlink_to(data / "slides" / slide)

    def write(path, values, size=(400, 300)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(path.stem)).choice(
            values, (*size[::-1], 3) if len(values) > 9 else size[::-1]
        )
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    colours = list(range(60, 250))
    for name, masks, values in (A0D2, "masks", [0, 1, 2, 4, 7]), (A1G6, "tumor_masks", [0, 255]):
        write(folder / "bcss" / "rgbs" / f"{name}.png", colours)
        write(folder / "bcss" / masks / f"{name}.png", values)
    for patient, values in ("AA15", [1, 2, 3, 255]), ("AA10", [1, 254, 255]):
        write(folder / "bcss_05um" / f"{patient}_mosaic_rgb.png", colours)
        write(folder / "bcss_05um" / f"{patient}_mosaic_mask.png", values)
    for name, stem, values in (
        ("camelyon", "10072", [0, 255]), ("camelyon", "10073", [0, 255]),
        ("brecahad", "Case_10-03", [1, 2, 9, 255]), ("brecahad", "Case_10-04", [1, 2, 9, 255]),
    ):  # fmt: skip
        write(folder / name / "images" / f"{stem}.png", colours)
        write(folder / name / "masks" / f"{stem}.png", values)
    for field in "hgsc_nest", "hgsc_stromal_he":
        write(folder / "demo" / f"{field}.png", colours, (1500, 1000))
        (folder / "demo" / f"{field}.png").rename(folder / "demo" / f"{field}.jpg")
        write(folder / "demo" / f"{field}_labels.png", [1, 2, 3], (1500, 1000))
    return folder


def made(script, source, output, **options):
    script.make(str(source), str(output), demo=str(source / "demo"), **options)
    manifest = json.loads((output / "manifest.json").read_text())
    places = {entry["roi"]: entry for entry in manifest["sources"]}
    return manifest, places


def test_patients_sources_splits_and_scale(script, source, tmp_path):
    manifest, places = made(script, source, tmp_path / "out", mpp=0.6, hold_out="TCGA-A2-A1G6")
    assert manifest["mpp"] == 0.6
    patients = defaultdict(set)
    for tile in manifest["tiles"]:
        patients[tile["split"], places[tile["roi"]]["source"]].add(tile["patient"])
    assert patients == {
        ("train", "bcss"): {"TCGA-A2-A0D2", "TCGA-S3-AA15"},
        ("test", "bcss"): {"TCGA-A2-A1G6"},
        ("val", "bcss"): {"TCGA-S3-AA10"},
        ("train", "camelyon"): {"camelyon_10072", "camelyon_10073"},
        ("train", "brecahad"): {"brecahad_Case_10"},
        ("train", "histolytics"): {"histolytics-hgsc"},
        ("train", "glass"): {"glass_CMU-1-Small-Region", "glass_TCGA-CR-7395-01A-01-TS1"},
    }
    sizes = {A0D2: 0.30, "AA15_mosaic": 0.5, "brecahad_Case_10-03": 0.22}
    for name, mpp in sizes.items():
        assert places[name]["picture_mpp"] == mpp
        assert (places[name]["width"], places[name]["height"]) == pytest.approx(
            (400 * mpp / 0.6, 300 * mpp / 0.6), abs=1
        )


def test_codes_say_what_is_known(script, source, tmp_path):
    manifest, _ = made(script, source, tmp_path / "out")
    codes = defaultdict(set)
    for tile in manifest["tiles"]:
        codes[tile["patient"]] |= {int(code) for code in tile["code_pixels"]}
    not_tumor, other = CODES["not_tumor"], CODES["other"]
    assert codes["TCGA-A2-A0D2"] == {0, 1, 2, 4, 7}
    assert codes["TCGA-A2-A1G6"] == {0, 1, not_tumor}
    assert codes["TCGA-S3-AA15"] == {0, 1, 2, 3}
    assert codes["TCGA-S3-AA10"] == {0, 1, not_tumor}
    assert codes["camelyon_10072"] == {0, 1, not_tumor}
    assert codes["brecahad_Case_10"] == {0, 1, 2, CODES["fat"]}
    assert {code for patient in codes if patient.startswith("glass") for code in codes[patient]} == {0, other}


def test_glass_is_glass_and_leaves_the_right_of_cmu_1_unseen(script, source, tmp_path):
    manifest, places = made(script, source, tmp_path / "out")
    for tile in manifest["tiles"]:
        if places[tile["roi"]].get("source") == "glass":
            image, mask = (np.asarray(Image.open(tmp_path / "out" / tile[kind])) for kind in ("image", "mask"))
            assert (image[mask == CODES["other"]].min(axis=1) > 200).mean() > 0.999
    assert all(x0 + width <= 500 for x0, _, width, _ in script.GLASS["CMU-1-Small-Region"])


def test_a_patient_who_is_not_there_is_refused(script, source, tmp_path):
    with pytest.raises(InputError, match="--hold_out A1G6: no patient of this name; there are TCGA-A2-A0D2"):
        made(script, source, tmp_path / "out", hold_out="A1G6")


def test_a_mask_of_other_values_is_refused(script, source, tmp_path):
    with pytest.raises(InputError, match="holds the value 2; known are 0, 1"):
        script._recoded(source / "brecahad" / "masks" / "Case_10-03.png", script.TUMOR_OR_NOT, tmp_path / "mask.png")
