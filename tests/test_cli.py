import json
import zlib
from functools import cache

import numpy as np
import pytest
from PIL import Image

from lightmuseg import __version__
from lightmuseg.cli.slide_commands import segment_options
from lightmuseg.data.prepare import prepare_bcss

CLI = ("python", "-m", "lightmuseg.cli")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["cohort", "info", "models", "prepare", "quantize", "segment", "stats", "verify"]),
        (["cohort"], ["SLIDES", "--output", "--engine", "--address", "--slides_at_once", "--gpus_per_worker", "--shard",
             "--model", "--override", "--mpp", "--runtime"]),
        (["prepare"], ["bcss", "bcss_wsss", "demo"]),
        (
            ["prepare", "bcss"],
            ["SOURCE", "OUTPUT", "--masks", "--mask_coding", "--val", "--test", "--val_fraction", "--test_fraction",
             "--seed", "--tile_size", "--min_annotated", "--overlap", "--split", "--folds", "--fold", "--tile_files",
             "--tile_mpp", "--check", "--fetch", "--patients", "--limit", "--regions_from", "--keep_slides",
             "--parallel"],
        ),
        (["prepare", "bcss-wsss"], ["SOURCE", "OUTPUT", "--pseudo_labels", "train_PM/PM_bn7", "--check"]),
        (["stats"], ["DATASET", "--output"]),
        (["verify"], ["FOLDER"]),
        (["prepare", "demo"], ["--output", "--wheels"]),
        (["segment"], ["SLIDES", "--output", "--model", "--bundle", "--mpp", "--output_mpp", "--region", "--resume",
             "--changed", "--runtime"]),
        (["quantize"], ["DATASET", "--model", "--max_drop"]),
    ],
)  # fmt: skip
def test_help_names_commands_and_options(run, words, named):
    status, stdout, stderr = run(*CLI, *words, "--help")
    assert status == 0
    assert [name for name in named if name not in stdout + stderr] == []


@pytest.mark.parametrize("words", ["prepare bcss", "prepare bcss source", "segment"])
def test_missing_argument_is_an_error(run, words):
    status, _, stderr = run(*CLI, *words.split())
    assert status != 0
    assert "Traceback" not in stderr


def write_regions(folder):
    """Four regions of four patients, the codes 1 to 3; the masks in a folder named like a number."""
    for kind in ("rgbs", "2024"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for patient in ("A1", "B2", "C3", "D4"):
        name = f"TCGA-{patient}-0000-DX1_xmin10_ymin20_MPP-0.2500.png"
        Image.fromarray(rng.integers(0, 256, (90, 130, 3), dtype=np.uint8)).save(folder / "rgbs" / name)
        Image.fromarray(rng.integers(1, 4, (90, 130), dtype=np.uint8)).save(folder / "2024" / name)
    return sorted((folder / "rgbs").iterdir())


def write_patches(folder):
    """A patch for each split in the form of BCSS-WSSS; the pseudo-label shows stroma, which the label denies."""
    region = "TCGA-A1-0000-DX1_xmin10_ymin20_MPP-0.2500"
    for images, masks, stem in (
        ("training", "train_PM/PM_bn7", f"{region}+0[1000]"),
        ("val/img", "val/mask", f"{region}+0"),
        ("test/img", "test/mask", f"{region}+0"),
    ):
        for kind, picture in ((images, Image.new("RGB", (224, 224))), (masks, Image.new("L", (224, 224), 1))):
            (folder / kind).mkdir(parents=True)
            picture.save(folder / kind / f"{stem}.png")


def write_spoilt(source, output):
    """A dataset with a wrong pixel in a tile of the size that the manifest says."""
    prepare_bcss(source, output, masks="2024", tile_size=64)
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    tile = manifest["tiles"][0]
    pixels = np.array(Image.open(output / tile["image"]))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(output / tile["image"])
    written = (output / tile["image"]).read_bytes()
    tile |= {"image_bytes": len(written), "image_crc32": zlib.crc32(written)}
    (output / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of inputs, good and bad."""
    place = tmp_path_factory.mktemp("Ablage ß 1")
    write_regions(place / "1e5")
    write_patches(place / "weak")
    write_spoilt(place / "1e5", place / "spoilt")
    damaged = write_regions(place / "damaged")[2]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    Image.new("RGB", (40, 30)).save(place / "picture.png")
    return place


BAD = {
    "not a kind of file": ["prepare", "bcss", "1e5", "out", "--masks", "2024", "--tile_files", "webp"],
    "not true or false": ["prepare", "bcss", "1e5", "out", "--masks", "2024", "--check=no"],
    "not a fold": ["prepare", "bcss", "1e5", "out", "--masks", "2024", "--folds", "3", "--fold", "3"],
    "no pseudo-labels": ["prepare", "bcss-wsss", "weak", "out", "--pseudo_labels", "elsewhere"],
    "no dataset": ["stats", "1e5"],
    "spoilt tile": ["prepare", "bcss", "1e5", "spoilt", "--masks", "2024", "--tile_size", "64", "--check"],
    "missing source": ["prepare", "bcss", "nowhere", "out"],
    "source and fetch": ["prepare", "bcss", "1e5", "out", "--fetch", "1e5"],
    "not a number": ["prepare", "bcss", "1e5", "out", "--masks", "2024", "--tile_size", "large"],
    "not a finite number": ["prepare", "bcss", "1e5", "out", "--masks", "2024", "--val_fraction", "nan"],
    "missing bundle": ["segment", "picture.png", "--output", "out", "--bundle", "nowhere"],
    "missing override": ["segment", "picture.png", "--output", "out", "--bundle", "{bundle}", "--override", "no.json"],
    "not an um per pixel": ["segment", "picture.png", "--output", "out", "--mpp", "fine"],
    "missing weights": ["segment", "picture.png", "--output", "out", "--bundle", "{bundle}", "--model", "no.pt"],
}
GOOD = {
    "places only": ["prepare", "bcss", "1e5", "places", "--masks", "2024", "--tile_files", "none", "--tile_size=64",
                    "--overlap", "0.25", "--folds", "4", "--fold", "1"],
    "check first": ["prepare", "bcss", "--check", "1e5", "places too", "--masks", "2024", "--tile_files=none"],
    "weak": ["prepare", "bcss-wsss", "--source", "weak", "--output", "weak tiles", "--check"],
    "shares": ["stats", "places"],
    "drawn": ["stats", "weak tiles", "--output", "shares"],
}  # fmt: skip
MISSPELT = ["prepare", "bcss", "1e5", "misspelt", "--masks", "2024", "--min_anotated", "0.5"]


@pytest.fixture(scope="module")
def called(run, root, place):
    """Run a command of those above in the folder of inputs, each once: exit status, stdout and stderr."""
    named = {**BAD, "misspelt option": MISSPELT, **GOOD}

    @cache
    def call(name):
        words = [word.format(bundle=root / "bundle") for word in named[name]]
        return run(*CLI, *words, cwd=place)

    return call


def assert_one_line(status, stderr, named):
    assert status == 1
    assert "Traceback" not in stderr
    faults = [line for line in stderr.splitlines() if "error" in line.lower() and "nv" not in line]
    assert len(faults) == 1
    assert faults[0].startswith("lightmuseg: error: ")
    assert named in faults[0]


def test_paths_may_look_like_numbers_and_hold_spaces_and_any_letters(run, place):
    output = place / "Kacheln ü 1"
    options = ("--masks", "2024", "--test", "TCGA-B2-0000", "--tile_size=64")
    status, stdout, stderr = run(*CLI, "prepare", "bcss", "1e5", output, *options, cwd=place)
    assert status == 0, stderr
    assert stdout.strip() == f"{output}: 18 train tiles, 0 val tiles, 6 test tiles of 0.3 um/px"
    tiles = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["tiles"]
    assert {tile["patient"] for tile in tiles if tile["split"] == "test"} == {"TCGA-B2-0000"}


def test_damaged_source_ends_in_one_line_that_names_it(run, place):
    status, _, stderr = run(*CLI, "prepare", "bcss", "damaged", "out", "--masks", "2024", cwd=place)
    assert_one_line(status, stderr, "damaged/rgbs/TCGA-C3-0000-DX1_xmin10_ymin20_MPP-0.2500.png")
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("not true or false", "--check no"),
        ("not a kind of file", "tile_files='webp'"),
        ("not a fold", "--fold 3"),
        ("no pseudo-labels", "weak/elsewhere"),
        ("no dataset", "1e5"),
        ("spoilt tile", "spoilt/images/TCGA-A1-0000-DX1_xmin10_ymin20_MPP-0.2500_x0_y0.png: differs"),
        ("missing source", "nowhere"),
        ("source and fetch", "give --source or --fetch, and --output"),
        ("not a number", "large"),
        ("not a finite number", "nan"),
        ("missing override", "no.json"),
        ("missing bundle", "nowhere"),
        ("not an um per pixel", "fine"),
        ("missing weights", "no.pt"),
    ],
)
def test_bad_input_ends_in_one_line(called, command, named):
    status, _, stderr = called(command)
    assert_one_line(status, stderr, named)


def test_without_a_network_to_fetch_from_one_line_names_the_host(run, place):
    words = ("--fetch", "fetched", "--output", "out", "--regions_from", "gdc")
    status, _, stderr = run(*CLI, "prepare", "bcss", *words, cwd=place, LIGHTMUSEG_GDC="http://127.0.0.1:9")
    assert_one_line(status, stderr, "http://127.0.0.1:9/files: cannot be reached")
    assert not (place / "fetched").exists()
    assert not (place / "out").exists()


def test_misspelt_option_is_refused_before_anything_is_written(called, place):
    status, _, stderr = called("misspelt option")
    assert status != 0
    assert "min_anotated" in stderr
    assert not (place / "misspelt").exists()


def output_of(called, command):
    status, stdout, stderr = called(command)
    assert status == 0, stderr
    return stdout.splitlines()


def test_dataset_without_tile_files_is_a_manifest(called, place):
    assert output_of(called, "places only") == ["places: 12 train tiles, 6 val tiles, 6 test tiles of 0.3 um/px"]
    assert [path.name for path in (place / "places").iterdir()] == ["manifest.json"]
    options = json.loads((place / "places" / "manifest.json").read_text(encoding="utf-8"))["options"]
    assert {**options, "tile_files": "none", "overlap": 0.25, "folds": 4, "fold": 1, "seed": 42} == options


def test_check_may_stand_before_the_source(called):
    lines = output_of(called, "check first")
    assert lines[0].startswith("places too: ")
    assert lines[1].startswith("places too: 4 tiles have the pixel counts of their crops of 4 regions")


def test_weak_dataset_says_what_it_proved(called):
    lines = output_of(called, "weak")
    assert lines[0] == "weak tiles: 1 train tiles, 1 val tiles, 1 test tiles of 0.3 um/px"
    assert lines[1] == "1 of 1 training patches show a class that their image-level label denies"
    assert lines[2].endswith("1 patients, 1 in more than one split, as published")


def test_shares_are_printed_and_written(called, place):
    output_of(called, "places only"), output_of(called, "weak")
    assert output_of(called, "shares")[1].split() == ["tiles", "12", "6", "6"]
    pytest.importorskip("matplotlib")
    assert output_of(called, "drawn")[-1] == "shares: class_shares.csv, class_shares.png"
    assert sorted(path.name for path in (place / "shares").iterdir()) == ["class_shares.csv", "class_shares.png"]


def test_a_runtime_that_is_not_known_is_refused_in_one_line(run, root, tmp_path):
    words = ("segment", root / "bundle" / "docs" / "a1g6_test.jpg", "--mpp", 0.25, "--output", tmp_path / "out")
    status, _, stderr = run(*CLI, *words, "--runtime", "fast")
    assert status == 1
    assert "lightmuseg: error: --runtime fast: is none of torch, " in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("drop", ["much", "2"])
def test_quantize_refuses_what_is_no_share(run, tmp_path, drop):
    write_regions(tmp_path / "BCSS")
    prepare_bcss(
        tmp_path / "BCSS", tmp_path / "tiles", masks="2024", tile_size=64, val=["TCGA-A1-0000"], test=["TCGA-B2-0000"]
    )
    status, _, stderr = run(*CLI, "quantize", tmp_path / "tiles", "--max_drop", drop)
    assert status == 1
    assert f"--max_drop {drop}" in stderr.splitlines()[-1] or f"--max_drop {float(drop)}" in stderr.splitlines()[-1]


def test_a_region_that_is_too_long_for_a_path_is_a_text():
    assert segment_options(region="1," * 3000)[2]["region"] == "1," * 3000


def test_info_says_what_works_here_and_what_is_missing(run):
    status, stdout, stderr = run(*CLI, "info")
    assert status == 0, stderr
    lines = stdout.splitlines()
    assert lines[0].startswith(f"lightmuseg {__version__}, Python ")
    assert "readers: cucim, openslide, tifffile, dicom, image" in lines
    assert "tensorrt" in stdout
    assert any(line.startswith("outputs: classes.tif, classes.ome.tif, regions.geojson") for line in lines)


def test_models_are_listed_with_what_their_cards_say(run):
    status, stdout, stderr = run(*CLI, "models")
    assert status == 0, stderr
    assert stdout.startswith("tumor: tumor at 0.25 um/px, tiles of 512 px\n")
    assert "  figures: pooled_dice 0.691" in stdout


def test_version(run):
    assert run(*CLI, "--version")[:2] == (0, f"lightmuseg {__version__}\n")
