"""A slide whose scanned part lies somewhere in its level 0: all positions are in that part, as QuPath's are."""

import json
import logging

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import shape
from stand_in_networks import Dark

from lightmuseg.areas.tissue import tissue_of
from lightmuseg.errors import InputError
from lightmuseg.label.prediction import predicted
from lightmuseg.slides import Options, segment_slides
from lightmuseg.slides.job import SlideJob
from lightmuseg.view.result_list import Results
from lightmuseg.view.zoom_tiles import open_result_slide
from lightmuseg.wsi.low_power import thumbnail
from lightmuseg.wsi.readers.opening import open_slide
from lightmuseg.wsi.readers.openslide import bounds_of
from lightmuseg.wsi.readers.reader import Bounds

SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:0">
<collection name="t" uuid="urn:uuid:1" sizeX="{glass_x}" sizeY="{glass_y}">{images}</collection></scn>"""
IMAGE = """<image name="{ifd}" uuid="urn:uuid:{ifd}"><creationDate>2011-09-15T14:00:00Z</creationDate>
<device model="Leica SCN400" version="1"/><pixels sizeX="{width}" sizeY="{height}">{levels}</pixels>
<view sizeX="{view_x}" sizeY="{view_y}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>{power}</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.75</numericalAperture><illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image>"""
# of the file's level 0 at 0.25 um/px, of which the scanned part has its own size and corner
GLASS = (1600, 1200)


def write_scn(path, levels, corner):
    """A Leica slide of 0.25 um/px with its scanned part at a corner of its level 0."""

    def dimensions(sizes, first):
        return "".join(
            f'<dimension sizeX="{width}" sizeY="{height}" r="{number}" ifd="{first + number}"/>'
            for number, (width, height) in enumerate(sizes)
        )

    # Leica counts in nm
    glass_x, glass_y = (side * 250 for side in GLASS)
    sizes = [level.shape[1::-1] for level in levels]
    macro = IMAGE.format(
        ifd=0, width=256, height=192, levels=dimensions([(256, 192)], 0), view_x=glass_x, view_y=glass_y, x=0, y=0,
        power=0.6,
    )  # fmt: skip
    main = IMAGE.format(
        ifd=1, width=sizes[0][0], height=sizes[0][1], levels=dimensions(sizes, 1), view_x=sizes[0][0] * 250,
        view_y=sizes[0][1] * 250, x=corner[0] * 250, y=corner[1] * 250, power=40,
    )  # fmt: skip
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        text = SCN.format(glass_x=glass_x, glass_y=glass_y, images=macro + main)
        file.write(np.full((192, 256, 3), 255, np.uint8), description=text, resolution=(1, 1), **options)
        for level in levels:
            file.write(level, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    return path


def pyramid(width=700, height=500, step=2):
    coarse = np.random.default_rng(0).integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
    images = [Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)]
    for _ in range(2):
        images.append(images[-1].resize([round(side / step) for side in images[-1].size], Image.Resampling.BOX))
    return [np.asarray(image) for image in images]


def segment(slide, output, runtime=None, **options):
    options = {"tissue_mask": False, "tolerance": 0.0, **options}
    segment_slides([slide], runtime or Dark(), Options(output_dir=output, class_names=("tumor",), **options), {})
    return output / slide.stem


def drawn(folder):
    """The union of a result's regions."""
    features = json.loads((folder / "regions.geojson").read_text())["features"]
    return shapely.union_all([shape(feature["geometry"]) for feature in features])


def test_levels_are_those_of_the_scanned_part(tmp_path):
    levels = pyramid()
    with open_slide(write_scn(tmp_path / "a.scn", levels, (400, 320))) as slide:
        assert slide.bounds == Bounds(400, 320, 700, 500)
        assert [(level.width, level.height) for level in slide.levels] == [(700, 500), (350, 250), (175, 125)]
        for index, level in enumerate(levels):
            assert np.array_equal(slide.read(index, 0, 0, level.shape[1], level.shape[0]), level)
        # around it there is nothing
        assert np.array_equal(slide.read(0, -10, 490, 30, 20)[:10, 10:], levels[0][490:500, :20])
        assert (slide.read(0, -10, 490, 30, 20)[10:] == 255).all()


@pytest.mark.parametrize("corner", [(400, 320), (401, 323)])
@pytest.mark.parametrize("step", [2, 2.3])
def test_boxes_lie_where_openslide_has_them(tmp_path, corner, step):
    """Also where neither the level's downsample nor the corner in it is a whole number."""
    path = write_scn(tmp_path / "a.scn", pyramid(step=step), corner)
    with open_slide(path) as slide, openslide.OpenSlide(path) as opened:
        for index, level in enumerate(slide.levels):
            size = level.width, level.height
            white = Image.new("RGBA", size, "white")
            whole = np.asarray(Image.alpha_composite(white, opened.read_region(corner, index, size)).convert("RGB"))
            pieces = [slide.read(index, xl, 0, 50, level.height) for xl in range(0, level.width, 50)]
            found = np.concatenate(pieces, axis=1)[:, : level.width]
            # OpenSlide's places are whole level-0 pixels; where that is all of a level's pixel the two are the same
            exact = float(level.downsample).is_integer()
            assert np.array_equal(found, whole) or (not exact and mean_difference(found, whole) < 1.5), index
            assert exact or mean_difference(found[:, 1:], whole[:, :-1]) > 3


def mean_difference(one, other):
    return np.abs(one.astype(int) - other).mean()


def test_bounds_that_are_none_are_said_and_left_out(caplog):
    size = (4000, 3000)

    def of(*values):
        caplog.clear()
        names = ("x", "y", "width", "height")
        given = {f"openslide.bounds-{name}": value for name, value in zip(names, values) if value is not None}
        return bounds_of("a.mrxs", given, size), [record.getMessage() for record in caplog.records]

    with caplog.at_level(logging.WARNING):
        assert of() == (None, [])
        assert of("100", "200", "1000", "500") == (Bounds(100, 200, 1000, 500), [])
        # all of it
        assert of("0", "0", "4000", "3000") == (None, [])
        for values in [
            ("100", "200", "0", "500"), ("100", "200", "1000", "-5"), ("-1", "0", "10", "10"),
            ("4000", "0", "10", "10"), ("nan", "0", "10", "10"), ("1.5", "0", "10", "10"),
            ("100", None, "1000", "500"), ("", "0", "10", "10"),
        ]:  # fmt: skip
            bounds, (said,) = of(*values)
            assert bounds is None
            assert "a.mrxs" in said
            assert "all of it is taken" in said
        bounds, (said,) = of("3500", "0", "1000", "500")
        assert bounds == Bounds(3500, 0, 500, 500)
        assert "are cut" in said


def test_everything_of_a_run_is_in_the_frame(tmp_path):
    levels = pyramid()
    folder = segment(write_scn(tmp_path / "a.scn", levels, (400, 320)), tmp_path / "out")
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(
        plain, levels[0], tile=(256, 256), photometric="rgb", resolution=(40_000, 40_000), resolutionunit="CENTIMETER"
    )
    alone = segment(plain, tmp_path / "out")
    for name in ("classes.tif", "regions.geojson", "overlay.png", "measurements.csv"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
    record = json.loads((folder / "run.json").read_text())
    assert record["level0_size"] == [700, 500]
    assert record["map_size"] == [350, 250]
    assert record["frame"] == {"x0": 400, "y0": 320, "width": 700, "height": 500}
    assert json.loads((alone / "run.json").read_text())["frame"] is None
    result = next(one for one in Results(tmp_path / "out").refresh() if one.slide.suffix == ".scn")
    with open_result_slide(result) as slide:
        assert (slide.levels[0].width, slide.levels[0].height) == (700, 500)


def test_tissue_and_thumbnail_are_of_the_frame(tmp_path):
    levels = [np.full((500, 700, 3), (200, 100, 190), np.uint8)]
    levels[0][:, :350] = 255
    with open_slide(write_scn(tmp_path / "a.scn", levels, (400, 320))) as slide:
        picture = thumbnail(slide, 2.0, 1000)
        assert picture.factor == 8
        assert picture.pixels.shape == (63, 88, 3)
        assert np.array_equal(picture.pixels[10, [10, 80]], [[255] * 3, (200, 100, 190)])
        # but for its margin, of 32 um
        assert tissue_of(slide).mask(0, 0, 50, 14, 10)[5, [0, 1, 2, 3, 7, 9, 13]].tolist() == [False] * 4 + [True] * 3


def test_run_that_was_started_in_the_whole_glass_is_not_continued_in_the_frame(tmp_path, monkeypatch):
    slide = write_scn(tmp_path / "a.scn", pyramid(), (400, 320))

    def stop(batch):
        if batch > 10:
            raise KeyboardInterrupt

    def job(network, **options):
        options = {"tissue_mask": False, "batch_size": 1, **options}
        chosen = Options(output_dir=tmp_path / "out", class_names=("tumor",), **options)
        return SlideJob(slide, network, chosen, {})

    with monkeypatch.context() as patched:
        patched.setattr("lightmuseg.wsi.readers.openslide.bounds_of", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            job(Dark(at=stop)).run()
    with pytest.raises(InputError, match="was started with frame None, not .*'x0': 400"):
        job(Dark(), resume=True).run()


def test_region_drawn_in_qupath_is_where_it_was_drawn(data, tmp_path):
    source = data / "slide_cases" / "leica_offset.scn"
    folder = segment(source, tmp_path, region=str(data / "slide_cases" / "qupath_scn_roi.geojson"))
    with openslide.OpenSlide(source) as opened:
        corner0 = [int(opened.properties[f"openslide.bounds-{axis}"]) + 100 for axis in "xy"]
        pixels = np.asarray(opened.read_region(corner0, 0, (500, 400)).convert("RGB"))
    dark = pixels[1::2, 1::2, 1] < 128
    classes = tifffile.imread(folder / "classes.tif")
    assert classes.shape == (384, 512)
    assert np.array_equal(classes[50:250, 50:300] == 1, dark)
    assert 0.05 < dark.mean() < 0.9
    regions = drawn(folder)
    assert regions.area == pytest.approx(4 * dark.sum())
    assert shapely.box(100, 100, 600, 500).contains(regions)


def test_label_server_counts_in_the_frame(tmp_path):
    levels = pyramid()

    class Network:
        mpp, overlap, batch_size, class_names, runtime = 0.25, 0.25, 4, ("tumor",), Dark()

    path = write_scn(tmp_path / "a.scn", levels, (400, 320))
    with predicted(path, Network(), (100, 60), (300, 200), level=1) as prediction:
        assert np.array_equal(prediction.image() == 1, levels[0][61:260:2, 101:400:2, 1] < 128)
        regions = shapely.union_all([polygon for _, polygon in prediction.annotations()])
        assert shapely.box(100, 60, 400, 260).contains(regions)
        assert regions.area == pytest.approx(4 * (levels[0][61:260:2, 101:400:2, 1] < 128).sum(), rel=0.02)
