"""Annotated slides as prepared datasets: the same polygons in each format, at the slide's pixels."""

import json
import logging
from collections import namedtuple

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import box, mapping

from lightmuseg.areas.annotations import Annotation, to_geojson, without_holes, write_asap, write_dsa
from lightmuseg.data import load_tiles
from lightmuseg.data.bcss import CODE_NAMES, CODES, find_regions, read_mask
from lightmuseg.data.prepare import prepare_annotations
from lightmuseg.data.tile_manifest import read_manifest
from lightmuseg.errors import InputError
from lightmuseg.outputs.outlines import outlines
from lightmuseg.wsi.images import read_codes, read_rgb
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers import open_slide

TILE, MPP = 64, 0.5
SIZE = 330, 210
Folders = namedtuple("Folders", "slides annotations output")


def codes_by_chance(seed, width=SIZE[0], height=SIZE[1]):
    patches = np.random.default_rng(seed).choice([1, 2, 4, 21], (height // 30 + 1, width // 30 + 1))
    return patches.repeat(30, axis=0).repeat(30, axis=1)[:height, :width].astype(np.uint8)


def drawn_around(codes):
    """The parts of a mask as polygons."""
    found = outlines(codes, 0, 0, 0, 1.0)
    return [
        Annotation(CODE_NAMES[code], polygon)
        for code, polygon in zip(found.classes.tolist(), found.polygons.tolist())
        if code
    ]


def write_slide(path, pixels, mpp=MPP):
    path.parent.mkdir(exist_ok=True, parents=True)
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), metadata=None, **resolution)


def write_annotation(path, annotations):
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".xml":
        parts = [Annotation(name, part) for name, polygon in annotations for part in without_holes(polygon)]
        write_asap(path, parts, CODE_NAMES, "a")
    elif path.suffix == ".json":
        write_dsa(path, annotations, CODE_NAMES, "a")
    else:
        path.write_text(json.dumps(to_geojson(annotations, CODE_NAMES)))


@pytest.fixture
def folders(tmp_path):
    """Two slides, of which nothing is annotated yet."""
    folders = Folders(tmp_path / "slides ü", tmp_path / "annotations", tmp_path / "dataset")
    for seed, name in enumerate(("TCGA-A1-AAAA-DX1", "TCGA-B2-BBBB-DX1")):
        coarse = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
        write_slide(folders.slides / f"{name}.tif", pixels)
    folders.annotations.mkdir()
    return folders


def prepare(folders, **options):
    options = {"tile_size": TILE, "tile_mpp": MPP, "val": ["TCGA-B2-BBBB"], **options}
    return prepare_annotations(*folders, **options)


def write_all(folders, ending, annotations_of):
    for seed, slide in enumerate(sorted(folders.slides.iterdir())):
        write_annotation(folders.annotations / f"{slide.stem}{ending}", annotations_of(seed))


def compare(folders, manifest, codes_of):
    """Each tile with the pixels of its slide and with the codes that are to be there."""
    corner = {source["roi"]: (source["x0"], source["y0"]) for source in manifest["sources"]}
    names = sorted(path.stem for path in folders.slides.iterdir())
    for tile in manifest["tiles"]:
        seed = next(number for number, name in enumerate(names) if tile["roi"].startswith(name))
        x, y = (place + start for place, start in zip((tile["x"], tile["y"]), corner[tile["roi"]]))
        pixels = read_rgb(folders.slides / f"{names[seed]}.tif")
        assert np.array_equal(read_rgb(folders.output / tile["image"]), pixels[y : y + TILE, x : x + TILE])
        assert np.array_equal(read_codes(folders.output / tile["mask"]), codes_of(seed)[y : y + TILE, x : x + TILE])
        yield x, y


@pytest.mark.parametrize("ending", [".geojson", ".json", ".xml", "_mask.png", ".tif"])
def test_each_format_gives_the_pixels_and_the_codes(ending, folders):
    if ending in ("_mask.png", ".tif"):
        for seed, slide in enumerate(sorted(folders.slides.iterdir())):
            Image.fromarray(codes_by_chance(seed)).save(folders.annotations / f"{slide.stem}{ending}")
    else:
        write_all(folders, ending, lambda seed: drawn_around(codes_by_chance(seed)))
    manifest = prepare(folders)
    assert manifest["tiles"] == read_manifest(folders.output)["tiles"]
    assert (manifest["mpp"], {tile["split"] for tile in manifest["tiles"]}) == (MPP, {"train", "val"})
    covered = np.zeros((2, *SIZE[::-1]), bool)
    for tile, (x, y) in zip(manifest["tiles"], compare(folders, manifest, codes_by_chance)):
        covered[tile["split"] == "val", y : y + TILE, x : x + TILE] = True
    assert covered.all()
    assert len(load_tiles(folders.output, "val")) == sum(tile["split"] == "val" for tile in manifest["tiles"])


def test_tiles_lie_where_something_is_annotated(folders):
    parts = [Annotation("tumor", box(10, 20, 40, 50)), Annotation("stroma", box(20, 30, 30, 40))]
    write_all(folders, ".geojson", lambda _: [*parts, Annotation("exclude", box(0, 0, *SIZE))])
    expected = np.zeros(SIZE[::-1], np.uint8)
    expected[20:50, 10:40], expected[30:40, 20:30] = 1, 2
    manifest = prepare(folders)
    # a margin of an eighth of a tile, and a tile at least
    assert [(source["width"], source["height"]) for source in manifest["sources"]] == [(TILE, TILE)] * 2
    assert list(compare(folders, manifest, lambda _: expected)) == [(0, 3)] * 2


@pytest.mark.parametrize("unannotated", ["ignore", "other"])
def test_what_nobody_annotated_is_ignored_or_other(unannotated, folders):
    parts = [Annotation("tumor", box(100, 60, 140, 110)), Annotation("exclude", box(120, 90, 160, 120))]
    write_all(folders, ".geojson", lambda _: parts)
    expected = np.full(SIZE[::-1], 0 if unannotated == "ignore" else CODES["other"])
    expected[60:110, 100:140] = 1
    if unannotated == "other":
        expected[90:120, 120:160] = CODES["exclude"]
    else:
        expected[90:110, 120:140] = CODES["exclude"]
    manifest = prepare(folders, unannotated=unannotated)
    assert len(list(compare(folders, manifest, lambda _: expected))) > 1


def test_in_an_annotated_region_what_is_not_drawn_is_other(folders):
    for slide in folders.slides.iterdir():
        shapes = {"Region*": box(50, 50, 200, 150), "Tumor": box(100, 100, 250, 120), "Bed: late": box(60, 60, 70, 70)}
        features = [
            {"type": "Feature", "geometry": mapping(shape), "properties": {"classification": {"name": name}}}
            for name, shape in shapes.items()
        ]
        (folders.annotations / f"{slide.stem}.geojson").write_text(json.dumps(features))
    expected = np.zeros(SIZE[::-1], np.uint8)
    expected[50:150, 50:200] = CODES["other"]
    expected[100:120, 100:250], expected[60:70, 60:70] = 1, 2
    manifest = prepare(folders, classes={"bed": (2,)})
    assert len(list(compare(folders, manifest, lambda _: expected))) > 3
    assert manifest["options"]["classes"] == {"bed": [2]}


@pytest.mark.parametrize("tile_mpp", [0.4, 0.7])
def test_tiles_are_what_inference_sees(tile_mpp, folders):
    write_all(folders, ".geojson", lambda _: [Annotation("tumor", box(80, 60, 300, 200))])
    manifest = prepare(folders, tile_mpp=tile_mpp)
    assert (manifest["mpp"], manifest["sources"][0]["picture_mpp"]) == (tile_mpp, MPP)
    for tile in manifest["tiles"]:
        name = tile["roi"].partition("_x")[0]
        xm, ym = (int(number) for number in tile["roi"].partition("_x")[2].split("_y"))
        with open_slide(folders.slides / f"{name}.tif") as reader:
            (seen,) = ModelView(reader, tile_mpp).read_batch([(xm + tile["x"], ym + tile["y"])], TILE)
        # as near as the filter's rounded weights are at another place of a box
        difference = np.abs(read_rgb(folders.output / tile["image"]).astype(int) - seen)
        assert difference.max() <= 2
        assert difference.mean() < 0.05
        centres_x = (np.arange(TILE) + xm + tile["x"] + 0.5) * tile_mpp / MPP
        centres_y = (np.arange(TILE) + ym + tile["y"] + 0.5) * tile_mpp / MPP
        expected = ((centres_y >= 60) & (centres_y < 200))[:, None] & ((centres_x >= 80) & (centres_x < 300))
        assert np.array_equal(read_codes(folders.output / tile["mask"]), expected)


def test_mask_may_be_a_fraction_of_the_slide(folders):
    for seed, slide in enumerate(sorted(folders.slides.iterdir())):
        Image.fromarray(codes_by_chance(seed)[::3, ::3].copy()).save(folders.annotations / f"{slide.stem}.png")
    manifest = prepare(folders)
    assert len(list(compare(folders, manifest, codes_by_chance))) == len(manifest["tiles"]) > 20


def test_second_run_changes_nothing_and_others_are_refused(folders, snapshot):
    write_all(folders, ".geojson", lambda _: [Annotation("tumor", box(80, 60, 200, 150))])
    manifest = prepare(folders)
    before = snapshot(folders.output)
    assert prepare(folders)["tiles"] == manifest["tiles"]
    assert snapshot(folders.output) == before
    with pytest.raises(InputError, match="prepared with unannotated=ignore, not other"):
        prepare(folders, unannotated="other")
    write_all(folders, ".geojson", lambda _: [Annotation("stroma", box(80, 60, 200, 150))])
    with pytest.raises(InputError, match="prepared from other source files"):
        prepare(folders)
    assert snapshot(folders.output) == before


def test_dataset_may_lie_in_the_folder_of_its_slides(folders, snapshot):
    folders = Folders(folders.slides, folders.slides, folders.slides / "dataset")
    for slide in [*folders.slides.iterdir()]:
        write_annotation(folders.slides / f"{slide.stem}.xml", [Annotation("tumor", box(80, 60, 200, 150))])
    manifest = prepare(folders)
    before = snapshot(folders.output)
    assert prepare(folders)["tiles"] == manifest["tiles"]
    assert snapshot(folders.output) == before


def test_slides_of_a_patient_are_in_one_split(folders, tmp_path):
    write_all(folders, ".geojson", lambda _: [Annotation("tumor", box(80, 60, 200, 150))])
    (tmp_path / "p.csv").write_text("slide,patient\nTCGA-A1-AAAA-DX1,one\nTCGA-B2-BBBB-DX1.tif,one\n")
    manifest = prepare(folders, patients=tmp_path / "p.csv", val=[])
    assert {(tile["patient"], tile["split"]) for tile in manifest["tiles"]} == {("one", "train")}
    assert len(manifest["sources"]) == 2


def test_picture_without_um_per_pixel_takes_what_is_given(folders):
    for path in list(folders.slides.iterdir()):
        Image.fromarray(read_rgb(path)).save(path.with_suffix(".png"))
        path.unlink()
    write_all(folders, ".geojson", lambda _: [Annotation("tumor", box(80, 60, 200, 150))])
    with pytest.raises(InputError, match="--mpp"):
        prepare(folders)
    assert prepare(folders, mpp=MPP)["sources"][0]["picture_mpp"] == MPP


def test_tiles_have_the_models_um_per_pixel_unless_told(folders):
    from lightmuseg.models.model import Model

    write_all(folders, ".geojson", lambda _: [Annotation("tumor", box(80, 60, 200, 150))])
    assert prepare(folders, tile_mpp=None)["mpp"] == Model.open("tumor").card.mpp


def test_what_is_left_out_is_reported(folders, caplog):
    write_all(folders, ".geojson", lambda _: [Annotation("tumor", box(80, 60, 200, 150))])
    first = min(folders.annotations.iterdir())
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
    first.write_text(json.dumps([point, point]))
    with pytest.raises(InputError, match="val and test name every patient"):
        prepare(folders)
    with caplog.at_level(logging.WARNING):
        assert {source["patient"] for source in prepare(folders, val=[])["sources"]} == {"TCGA-B2-BBBB"}


def test_options_without_effect_are_reported(folders, caplog, monkeypatch):
    write_all(folders, ".geojson", lambda _: [Annotation("tumor", box(80, 60, 200, 150))])
    # so that what is logged can be seen here
    monkeypatch.setattr("lightmuseg.data.prepare.each", lambda function, items, *_: [*map(function, items)])
    prepare(folders, mpp=0.25, classes={"Tumr": (2,), "TUMOR": (2,)})
    assert "no object is of the class Tumr that --classes names" in caplog.text
    assert "its slide says that it is of 0.5 um/px, and --mpp 0.25 is not used" in caplog.text


SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [50, 0], [50, 50], [0, 50], [0, 0]]]}


def feature(name, geometry=SQUARE):
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}


FAR = mapping(box(4000, 4000, 4100, 4100))


@pytest.mark.parametrize(
    ("content", "options", "fault"),
    [
        ([feature("Kiwi"), feature("Banana")], {}, "class 'Banana', 'Kiwi' is not known; .* --classes"),
        ([{"type": "Feature", "geometry": SQUARE}], {}, "'Unclassified' is not known"),
        ([feature("Tumor", FAR)], {}, "beside or far around the image of 330 x 210 pixels"),
        ([], {}, "nothing is annotated on any slide"),
        ([feature("Ignore*")], {}, "nothing is annotated on any slide"),
        ("{", {}, "no GeoJSON"),
        ([feature("Tumor")], {"unannotated": "stroma"}, "one of ignore, other"),
        ([feature("Tumor")], {"tile_mpp": 0.0}, "0.0 um per pixel is outside .*--tile_mpp"),
        ([feature("Tumor")], {"tile_size": 100}, "multiple of 32"),
        ([feature("Tumor")], {"tile_size": 99_999_999_968}, "multiple of 32 pixels, at most"),
        ([feature("Tumor")], {"mpp": -3.0}, "-3.0 um per pixel is outside .*--mpp"),
        ([feature("Tumor")], {"tile_files": "none"}, "one of png, tiff"),
        ([feature("Tumor")], {"mask_coding": "x"}, "is not known"),
        ([feature("Tumor")], {"val": ["TCGA-X"]}, "patient TCGA-X is not in the data"),
        ([feature("Tumor")], {"min_annotated": 1.0}, "no tile has 100% of its pixels annotated"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line_and_leaves_nothing(content, options, fault, folders):
    for slide in folders.slides.iterdir():
        path = folders.annotations / f"{slide.stem}.geojson"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=fault) as error:
        prepare(folders, **options)
    assert "\n" not in str(error.value)
    assert not folders.output.exists()


@pytest.mark.parametrize(
    ("size", "value", "fault"),
    [((330, 200), 1, "330 x 200 pixels, no fraction of the 330 x 210"), (SIZE, 77, "unknown mask code 77")],
)
def test_mask_of_another_shape_or_coding_is_refused(size, value, fault, folders):
    for slide in folders.slides.iterdir():
        Image.fromarray(np.full(size[::-1], value, np.uint8)).save(folders.annotations / f"{slide.stem}.png")
    with pytest.raises(InputError, match=fault):
        prepare(folders)
    assert not folders.output.exists()


def test_bcss_drawn_as_polygons_is_bcss_again(data, tmp_path):
    (region,) = [one for one in find_regions(data / "bcss", "tumor_masks") if "A0D2" in one.name]
    part = np.s_[300:900, 1000:1800]
    codes = read_mask(data / "bcss" / "masks" / region.mask.name)[part].copy()
    folders = Folders(tmp_path / "slides", tmp_path / "annotations", tmp_path / "out")
    write_slide(folders.slides / "a.tif", read_rgb(region.image)[part], region.mpp)
    write_annotation(folders.annotations / "a.geojson", drawn_around(codes))
    manifest = prepare_annotations(*folders, tile_size=256, tile_mpp=region.mpp, min_annotated=0.0)
    assert {1, 2} <= {int(code) for tile in manifest["tiles"] for code in tile["code_pixels"]}
    for tile in manifest["tiles"]:
        place = np.s_[tile["y"] : tile["y"] + 256, tile["x"] : tile["x"] + 256]
        assert np.array_equal(read_codes(folders.output / tile["mask"]), codes[place])
        assert np.array_equal(read_rgb(folders.output / tile["image"]), read_rgb(region.image)[part][place])
