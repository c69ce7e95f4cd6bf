import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import lightmuseg
from lightmuseg.data import load_tiles
from lightmuseg.data.bcss import CODES
from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.data.tiles import even_tile_starts
from lightmuseg.errors import InputError
from lightmuseg.wsi.images import read_rgb

TILE = 128


@pytest.fixture
def prepared(bcss, tmp_path):
    output = tmp_path / "Kacheln ü"
    return SimpleNamespace(bcss=bcss, output=output, manifest=prepare_bcss(bcss.folder, output, tile_size=TILE))


def pixels(path):
    return np.array(Image.open(path))


def crop(array, tile, fill):
    """The square at the tile's x, y; ``fill`` beyond the array."""
    square = np.full((TILE, TILE, *array.shape[2:]), fill, dtype=np.uint8)
    part = array[tile["y"] : tile["y"] + TILE, tile["x"] : tile["x"] + TILE]
    square[: part.shape[0], : part.shape[1]] = part
    return square


def test_tiles_cover_every_length_with_the_fewest():
    for size in (32, 512):
        for length in [*range(1, 200), 511, 512, 513, 1023, 1024, 1025, 2418, 3391, 8000]:
            starts = even_tile_starts(length, size)
            covered = np.zeros(max(length, size), dtype=bool)
            for start in starts:
                assert start >= 0
                covered[start : start + size] = True
            assert covered.all()
            assert starts[-1] + size == max(length, size)
            assert len(starts) == math.ceil(length / size)


def test_tiles_overlap_evenly():
    for length in range(513, 4000, 37):
        steps = np.diff(even_tile_starts(length, 512))
        assert steps.max() - steps.min() <= 1


def test_neighbours_overlap_by_the_share_at_least_with_the_fewest_tiles():
    for size in (32, 224, 512):
        for overlap in (0.1, 0.25, 0.5, 0.9):
            for length in [1, size - 1, size, size + 1, 1000, 1024, 2418, 3391]:
                starts = even_tile_starts(length, size, overlap)
                steps = np.diff(starts)
                assert (steps > 0).all()
                assert (steps <= size * (1 - overlap)).all()
                assert starts[0] == 0
                assert starts[-1] == max(0, length - size)
                # one tile fewer could not do it
                longest = int(size * (1 - overlap) + 1e-9)
                assert len(starts) == 1 or (len(starts) - 2) * longest < length - size


def test_overlapping_tiles_are_exact_crops(bcss, tmp_path):
    apart = prepare_bcss(bcss.folder, tmp_path / "apart", tile_size=TILE)
    manifest = prepare_bcss(bcss.folder, tmp_path / "out", tile_size=TILE, overlap=0.5)
    assert len(manifest["tiles"]) > len(apart["tiles"])
    for tile in manifest["tiles"]:
        assert np.array_equal(pixels(tmp_path / "out" / tile["image"]), crop(bcss.images[tile["roi"]], tile, 255))
        assert np.array_equal(pixels(tmp_path / "out" / tile["mask"]), crop(bcss.masks[tile["roi"]], tile, 0))


def test_tiles_of_a_region_stand_together_row_by_row(bcss, tmp_path):
    manifest = prepare_bcss(bcss.folder, tmp_path / "out", tile_size=64, overlap=0.25)
    order = [(tile["roi"], tile["y"], tile["x"]) for tile in manifest["tiles"]]
    assert order == sorted(order)


def test_sources_say_place_size_and_hash(prepared):
    for source in prepared.manifest["sources"]:
        mask = prepared.bcss.masks[source["roi"]]
        assert (source["height"], source["width"]) == mask.shape
        digest = hashlib.sha256((prepared.bcss.folder / "masks" / source["mask"]).read_bytes()).hexdigest()
        assert source["mask_sha256"] == digest
    assert {source["roi"] for source in prepared.manifest["sources"]} == set(prepared.bcss.masks)


@pytest.fixture
def without_files(bcss, tmp_path):
    shutil.rmtree(bcss.folder / "rgbs")
    output = tmp_path / "places only"
    return SimpleNamespace(output=output, manifest=prepare_bcss(bcss.folder, output, tile_size=TILE, tile_files="none"))


def test_tiff_tiles_hold_the_same_pixels_without_compression(bcss, prepared, tmp_path):
    manifest = prepare_bcss(bcss.folder, tmp_path / "tiff", tile_size=TILE, tile_files="tiff")
    assert len(manifest["tiles"]) == len(prepared.manifest["tiles"])
    for tile, png in zip(manifest["tiles"], prepared.manifest["tiles"]):
        path = tmp_path / "tiff" / tile["image"]
        assert path.suffix == ".tif"
        assert path.stat().st_size >= 3 * TILE**2
        assert np.array_equal(read_rgb(path), read_rgb(prepared.output / png["image"]))


def test_without_tile_files_there_is_the_manifest_only_and_no_image_is_read(without_files):
    assert [path.name for path in without_files.output.iterdir()] == ["manifest.json"]
    assert without_files.manifest["options"]["tile_files"] == "none"
    keys = {"split", "patient", "roi", "x", "y", "code_pixels"}
    assert all(set(tile) == keys for tile in without_files.manifest["tiles"])
    keys = {"roi", "patient", "x0", "y0", "mpp", "picture_mpp", "width", "height", "mask", "mask_sha256"}
    assert all(set(source) == keys for source in without_files.manifest["sources"])


def test_without_tile_files_the_tiles_are_the_same(prepared, without_files):
    files = ("image", "image_bytes", "image_crc32", "mask", "mask_bytes", "mask_crc32")
    expected = [{key: tile[key] for key in tile if key not in files} for tile in prepared.manifest["tiles"]]
    assert without_files.manifest["tiles"] == expected


def test_second_run_without_tile_files_changes_nothing(bcss, without_files, snapshot):
    before = snapshot(without_files.output)
    again = prepare_bcss(bcss.folder, without_files.output, tile_size=TILE, tile_files="none")
    assert snapshot(without_files.output) == before
    assert again["tiles"] == without_files.manifest["tiles"]


def test_tiles_are_exact_crops_filled_with_white_and_outside_roi(prepared):
    for tile in prepared.manifest["tiles"]:
        image, mask = prepared.bcss.images[tile["roi"]], prepared.bcss.masks[tile["roi"]]
        assert np.array_equal(pixels(prepared.output / tile["image"]), crop(image, tile, 255))
        assert np.array_equal(pixels(prepared.output / tile["mask"]), crop(mask, tile, 0))


def test_tiles_cover_every_region(prepared):
    uncovered = {name: np.ones(mask.shape, dtype=bool) for name, mask in prepared.bcss.masks.items()}
    for tile in prepared.manifest["tiles"]:
        uncovered[tile["roi"]][tile["y"] : tile["y"] + TILE, tile["x"] : tile["x"] + TILE] = False
    assert not any(left.any() for left in uncovered.values())


def test_tiles_are_written_once_and_nothing_else(prepared):
    listed = [tile[kind] for tile in prepared.manifest["tiles"] for kind in ("image", "mask")]
    assert len(listed) == len(set(listed))
    there = {path.relative_to(prepared.output).as_posix() for path in prepared.output.rglob("*") if path.is_file()}
    assert there == {*listed, "manifest.json"}


def test_manifest_counts_the_pixels_of_each_code(prepared):
    for tile in prepared.manifest["tiles"]:
        counts = np.bincount(pixels(prepared.output / tile["mask"]).ravel())
        assert tile["code_pixels"] == {str(code): count for code, count in enumerate(counts) if count}


def test_manifest_on_disk_is_the_one_returned(prepared):
    on_disk = json.loads((prepared.output / "manifest.json").read_text(encoding="utf-8"))
    assert on_disk == json.loads(json.dumps(prepared.manifest))


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_is_in_two_splits(bcss, tmp_path, seed):
    options = {"seed": seed, "val_fraction": 0.3, "test_fraction": 0.3, "tile_size": TILE}
    manifest = prepare_bcss(bcss.folder, tmp_path / "out", **options)
    splits = {}
    for tile in manifest["tiles"]:
        splits.setdefault(tile["roi"][:12], set()).add(tile["split"])
    assert len(splits) == 5
    assert all(len(split) == 1 for split in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}


def test_second_run_changes_nothing(prepared, snapshot):
    before = snapshot(prepared.output)
    again = prepare_bcss(prepared.bcss.folder, prepared.output, tile_size=TILE)
    assert snapshot(prepared.output) == before
    assert again["tiles"] == prepared.manifest["tiles"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tile_size", 96),
        ("seed", 7),
        ("val_fraction", 0.2),
        ("min_annotated", 0.5),
        ("val", ["TCGA-A1-AAAA"]),
        ("overlap", 0.25),
        ("folds", 3),
        ("tile_files", "none"),
        ("mpp", 0.25),
        ("tile_mpp", 0.5),
    ],
)
def test_output_of_other_options_is_refused_and_left_alone(prepared, snapshot, option, value):
    before = snapshot(prepared.output)
    with pytest.raises(InputError, match=f"{prepared.output}: was prepared with"):
        prepare_bcss(prepared.bcss.folder, prepared.output, **{"tile_size": TILE, option: value})
    assert snapshot(prepared.output) == before


@pytest.mark.parametrize("kind", ["rgbs", "masks"])
def test_output_of_other_sources_is_refused_and_left_alone(prepared, snapshot, kind):
    before = snapshot(prepared.output)
    source = sorted((prepared.bcss.folder / kind).iterdir())[2]
    changed = pixels(source)
    changed[5, 6] = 3
    Image.fromarray(changed).save(source)
    with pytest.raises(InputError, match=f"{prepared.output}: was prepared from other source files"):
        prepare_bcss(prepared.bcss.folder, prepared.output, tile_size=TILE)
    assert snapshot(prepared.output) == before


def test_foreign_output_is_refused_and_left_alone(bcss, tmp_path, snapshot):
    output = tmp_path / "mine"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=f"{output}: is there already"):
        prepare_bcss(bcss.folder, output)
    assert snapshot(tmp_path) == before


def test_empty_output_folder_is_used(bcss, tmp_path):
    (tmp_path / "out").mkdir()
    prepare_bcss(bcss.folder, tmp_path / "out", tile_size=TILE)
    assert load_tiles(tmp_path / "out", "train")


def write_other_size(bcss, stem):
    Image.new("L", (31, 30)).save(bcss.folder / "masks" / f"{stem}.png")
    return f"masks/{stem}.png"


def write_unknown_code(bcss, stem):
    bcss.masks[stem][3, 4] = 22
    Image.fromarray(bcss.masks[stem]).save(bcss.folder / "masks" / f"{stem}.png")
    return f"masks/{stem}.png"


def truncate_image(bcss, stem):
    path = bcss.folder / "rgbs" / f"{stem}.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return f"rgbs/{stem}.png"


def truncate_mask(bcss, stem):
    path = bcss.folder / "masks" / f"{stem}.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return f"masks/{stem}.png"


@pytest.mark.parametrize("damage", [write_other_size, write_unknown_code, truncate_image, truncate_mask])
def test_bad_source_is_named_and_nothing_is_left(bcss, tmp_path, damage):
    named = damage(bcss, sorted(bcss.images)[-2])
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=named):
        prepare_bcss(bcss.folder, tmp_path / "out", tile_size=TILE)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tile_size": 100}, "tile_size=100"),
        ({"tile_size": 0}, "tile_size=0"),
        ({"tile_size": -512}, "tile_size=-512"),
        ({"min_annotated": 1.5}, "min_annotated=1.5"),
        ({"min_annotated": float("nan")}, "min_annotated=nan"),
        ({"mask_coding": "camelyon"}, "'camelyon'"),
        ({"overlap": 1}, "overlap=1"),
        ({"overlap": -0.1}, "overlap=-0.1"),
        ({"overlap": float("nan")}, "overlap=nan"),
        ({"mpp": 0.001}, "0.001 um per pixel .* --mpp"),
        ({"mpp": float("nan")}, "nan um per pixel .* --mpp"),
        ({"tile_mpp": 25.4}, "25.4 um per pixel .* --tile_mpp"),
    ],
)
def test_bad_options_are_refused_with_their_value(bcss, tmp_path, options, named):
    with pytest.raises(InputError, match=named):
        prepare_bcss(bcss.folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_min_annotated_leaves_out_tiles_with_less(bcss, tmp_path):
    least = 0.8
    everything = prepare_bcss(bcss.folder, tmp_path / "all", tile_size=TILE)
    annotated = {
        tile["image"]: 1 - np.isin(pixels(tmp_path / "all" / tile["mask"]), (0, CODES["exclude"])).mean()
        for tile in everything["tiles"]
    }
    expected = {name for name, share in annotated.items() if share >= least}
    assert 0 < len(expected) < len(annotated)
    kept = prepare_bcss(bcss.folder, tmp_path / "some", tile_size=TILE, min_annotated=least)
    assert {tile["image"] for tile in kept["tiles"]} == expected


@pytest.mark.parametrize("name", ["outside_roi", "exclude"])
def test_min_annotated_that_leaves_nothing_is_refused(bcss, tmp_path, name):
    for path in (bcss.folder / "masks").iterdir():
        Image.fromarray(np.full_like(pixels(path), CODES[name])).save(path)
    with pytest.raises(InputError, match="--min_annotated"):
        prepare_bcss(bcss.folder, tmp_path / "out", tile_size=TILE, min_annotated=0.01)
    assert not (tmp_path / "out").exists()


def test_deleted_or_truncated_tile_is_reported(prepared):
    tile = load_tiles(prepared.output, "train")[1]
    mask, image = Path(tile["label"]), Path(tile["image"])
    mask.write_bytes(mask.read_bytes()[:-1])
    with pytest.raises(InputError, match=str(mask)):
        load_tiles(prepared.output, "train")
    image.unlink()
    with pytest.raises(InputError, match=f"{image}: is missing"):
        load_tiles(prepared.output, "train")
    with pytest.raises(InputError, match=str(prepared.output)):
        prepare_bcss(prepared.bcss.folder, prepared.output, tile_size=TILE)


@pytest.fixture(scope="module")
def killed(large_bcss, tmp_path_factory):
    """A preparation killed while it cut: its output folder, and whether processes of it lived on."""
    output = tmp_path_factory.mktemp("killed") / "out"
    code = "import sys, pathlib; from lightmuseg.data.prepare import prepare_bcss; "
    code += "prepare_bcss(*map(pathlib.Path, sys.argv[1:]), tile_size=256)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(large_bcss.folder), str(output)],
        env={**os.environ, "PYTHONPATH": str(Path(lightmuseg.__file__).parents[1])},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while sum(1 for _ in output.parent.glob("**/*_x*_y*.png")) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.wait()
        there = output.exists()
        patience = time.monotonic() + 5
        while (alive := group_is_alive(process.pid)) and time.monotonic() < patience:
            time.sleep(0.05)
    finally:
        if group_is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    while group_is_alive(process.pid):
        time.sleep(0.05)
    return SimpleNamespace(output=output, there=there, alive=alive)


def group_is_alive(group):
    states = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    fields = [state.rpartition(")")[2].split() for state in states]
    return any(int(field[2]) == group and field[0] != "Z" for field in fields)


def test_killed_run_leaves_no_output(killed):
    assert not killed.there
    assert not killed.output.exists()


def test_killed_run_leaves_no_process(killed):
    assert not killed.alive


def test_run_after_a_killed_one_is_as_an_uninterrupted_one(killed, large_bcss, tmp_path):
    prepare_bcss(large_bcss.folder, killed.output, tile_size=256)
    prepare_bcss(large_bcss.folder, tmp_path / "calm", tile_size=256)
    names = {path.relative_to(tmp_path / "calm") for path in (tmp_path / "calm").rglob("*")}
    assert {path.relative_to(killed.output) for path in killed.output.rglob("*")} == names
    for name in names:
        if (killed.output / name).is_file():
            assert (killed.output / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert [path.name for path in killed.output.parent.iterdir()] == ["out"]
    shutil.rmtree(tmp_path / "calm")
