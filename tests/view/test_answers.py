"""What the server answers, compared with the files by other libraries."""

import io
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from segmented_slides import segmented
from shapely.geometry import Point, shape
from starlette.testclient import TestClient

from lightmuseg.classes import COLOURS
from lightmuseg.outputs import pyramid
from lightmuseg.view.app import make_app
from lightmuseg.view.result_list import Results
from lightmuseg.view.zoom_tiles import TileLevels, levels_of
from lightmuseg.wsi.readers import Level

TILE = 512


def client_of(root):
    return TestClient(make_app(Results(root), "127.0.0.1"), base_url="http://127.0.0.1:8080")


@pytest.fixture
def own(made, tmp_path):
    """The results, to change."""
    return shutil.copytree(made / "results", tmp_path / "own")


@pytest.fixture
def one(client, ids):
    return client.get(f"/results/{ids['one']}").json()


def picture(answer):
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def tiles(levels):
    """Level, column, row and factor of all tiles."""
    for level in range(levels["min_level"], levels["max_level"] + 1):
        factor = 2 ** (levels["max_level"] - level)
        width, height = (-(-levels[side] // factor) for side in ("width", "height"))
        for row in range(-(-height // TILE)):
            for column in range(-(-width // TILE)):
                size = min(TILE, width - column * TILE), min(TILE, height - row * TILE)
                yield level, column, row, factor, size


def test_results_are_listed_at_any_depth_and_hidden_ones_left_out(own):
    shutil.copytree(own / "one", own / ".three.partial" / "results")
    answer = client_of(own).get("/results").json()
    assert [one["place"] for one in answer["results"]] == ["one", "patient 7/left/two"]
    assert [one["warnings"] for one in answer["results"]] == [1, 0]
    # 200 x 200 less 40 x 40 pixels of 1 um
    assert answer["results"][0]["areas_mm2"]["tumor"] == pytest.approx(0.0384)


def test_what_is_no_result_is_told_and_the_others_are_shown(own, caplog):
    bad = {
        "a": "{", "b": "[]", "c": '{"metrics": {}}', "d": "[" * 100_000, "e": '{"slide": "x", "options": {}}',
        "f": (own / "one" / "run.json").read_text().replace("[1500, 1102]", "[1e999, -1]"),
        "g": (own / "one" / "run.json").read_text().replace('["tumor", "stroma"]', '"tumor"'),
        "h": "\xff\x00",
    }  # fmt: skip
    for name, text in bad.items():
        (own / name).mkdir()
        (own / name / "run.json").write_text(text, encoding="latin-1")
    client = client_of(own)
    answer = client.get("/results").json()
    assert len(answer["results"]) == 2
    assert answer["skipped"].keys() == bad.keys()
    assert len(caplog.records) == len(bad)
    client.get("/results")
    assert len(caplog.records) == len(bad), "each is told once"


@pytest.mark.parametrize("table", ["cohort.csv", "report.csv"])
def test_slides_that_failed_are_told_with_their_reasons(own, table):
    (own / table).write_text(
        'slide,status,message\n/slides/a.svs,done,\n/slides/b.svs,failed,"b.svs: is cut short, 3 tiles"\n'
    )
    assert client_of(own).get("/results").json()["failed"] == {"/slides/b.svs": "b.svs: is cut short, 3 tiles"}


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"slide,status,message\nx,failed\n", b"status\n" + b"x" * 200_000]
)
def test_a_table_that_is_none_of_ours_does_no_harm(own, content):
    (own / "cohort.csv").write_bytes(content)
    assert len(client_of(own).get("/results").json()["results"]) == 2


def test_new_results_are_there_when_the_list_is_asked_again(own):
    client = client_of(own)
    assert len(client.get("/results").json()["results"]) == 2
    tag = client.get("/results").headers["etag"]
    assert client.get("/results", headers={"If-None-Match": tag}).status_code == 304
    shutil.copytree(own / "one", own / "new")
    answer = client.get("/results", headers={"If-None-Match": tag})
    assert [one["place"] for one in answer.json()["results"]] == ["new", "one", "patient 7/left/two"]


def test_a_folder_of_one_result_is_shown_by_its_name(made):
    (one,) = client_of(made / "results" / "one").get("/results").json()["results"]
    assert one["place"] == "one"


def test_slide_tiles_are_the_slides_pixels(client, one, made):
    slide = openslide.OpenSlide(made / "one.tif")
    address = f"/results/{one['id']}/{one['version']}/slide"
    seen = set()
    for level, column, row, factor, size in tiles(one["slide"]["levels"]):
        tile = picture(client.get(f"{address}/{level}/{column}/{row}.jpg"))
        assert tile.size == size
        corner0 = column * TILE * factor, row * TILE * factor
        region = slide.read_region(corner0, 0, (size[0] * factor, size[1] * factor))
        expected = Image.alpha_composite(Image.new("RGBA", region.size, "white"), region).convert("RGB")
        expected = np.asarray(expected.resize(size, Image.Resampling.BOX), int)
        # the last pixels of a level may reach over the slide's edge
        inside = np.abs(np.asarray(tile, int) - expected)[: size[1] - 1, : size[0] - 1]
        assert inside.size == 0 or (inside.mean() < 2 and inside.max() < 30)
        seen.add(level)
    assert max(seen) == 11
    assert min(seen) <= 9


def test_map_tiles_are_the_maps_pixels_in_the_colours_of_the_shown_classes(client, one, made):
    address = f"/results/{one['id']}/{one['version']}/map"
    colours = {1: COLOURS["tumor"], 2: COLOURS["stroma"]}
    path = made / "results" / "one" / "classes.tif"
    for shown in ((1, 2, 255), (1,), (2,), (255,)):
        for level, column, row, factor, size in tiles(one["map"]["levels"]):
            tile = picture(client.get(f"{address}/{'-'.join(map(str, shown))}/{level}/{column}/{row}.png"))
            assert tile.size == size
            pixels = np.asarray(tile.convert("RGBA"))
            whole = (
                tifffile.imread(path, series=0, level=0)
                if factor == 1
                else tifffile.imread(path, key=int(np.log2(factor)))
            )
            classes = whole[row * TILE :, column * TILE :][: size[1], : size[0]]
            assert (pixels[..., 3] == 255 * np.isin(classes, shown)).all()
            for index in {1, 2} & set(shown):
                assert (pixels[classes == index][:, :3] == colours[index]).all()
            unread = pixels[classes == 255]
            if 255 in shown and len(unread) > 500:
                assert {tuple(colour) for colour in unread[:, :3]} == {(128, 128, 128), (60, 60, 60)}


def test_a_map_in_ome_tiff_gives_the_same_tiles(own, classes, class_map):
    (own / "one" / "classes.tif").unlink()
    pyramid.write_ome(own / "one" / "classes.ome.tif", segmented(class_map(classes)))
    (own / "patient 7" / "left" / "two" / "classes.tif").unlink()
    pyramid.write(own / "patient 7" / "left" / "two" / "classes.tif", segmented(class_map(classes)))
    client = client_of(own)
    one, two = client.get("/results").json()["results"]
    levels = [client.get(f"/results/{result['id']}").json()["map"]["levels"] for result in (one, two)]
    assert levels[0] == levels[1]
    assert levels[0]["max_level"] - levels[0]["min_level"] == 1
    for level, column, row, _, _ in tiles(levels[0]):
        tail = f"map/1-2-255/{level}/{column}/{row}.png"
        contents = [client.get(f"/results/{one['id']}/{one['version']}/{tail}").content for one in (one, two)]
        assert contents[0] == contents[1]


def test_a_picture_is_shown_as_a_slide(own, made):
    path = own / "one" / "run.json"
    picture_path = own.parent / "one.png"
    Image.fromarray(tifffile.imread(made / "one.tif", key=0)).save(picture_path)
    path.write_text(path.read_text().replace(str(made / "one.tif"), str(picture_path)).replace("cucim", "image"))
    client = client_of(own)
    (one, _) = client.get("/results").json()["results"]
    tile = picture(client.get(f"/results/{one['id']}/{one['version']}/slide/10/0/0.jpg"))
    expected = Image.open(picture_path).crop((0, 0, 1024, 1024)).resize((512, 512), Image.Resampling.BOX)
    assert np.abs(np.asarray(tile, int) - np.asarray(expected, int)).max() < 30


def test_a_slide_without_coarse_levels_has_no_tiles_that_would_read_much_of_it():
    reader = SimpleNamespace(levels=[Level(80_000, 60_000, 1.0)])
    assert levels_of(reader) == TileLevels(80_000, 60_000, 14, 17)
    reader.levels += [Level(5_000, 3_750, 16.0)]
    assert levels_of(reader).min_level == 10


def test_map_lies_where_the_slide_is(client, one):
    assert one["map"]["downsample"] == 2
    assert one["map"]["levels"]["width"] * 2 == one["slide"]["levels"]["width"] == 1500


def test_region_at_a_place_is_the_polygon_of_the_file(client, one, made):
    features = json.loads((made / "results" / "one" / "regions.geojson").read_text())["features"]
    regions = [(feature["properties"]["classification"]["name"], shape(feature["geometry"])) for feature in features]
    asked = {}
    for x0, y0 in ((300, 300), (1040, 640), (400, 400), (5, 5), (1450, 1050), (-5, 1e6)):
        found = client.get(f"/results/{one['id']}/region?x0={x0}&y0={y0}&step0=1").json()
        expected = [(name, region) for name, region in regions if region.contains(Point(x0, y0))]
        assert (found is None) == (not expected)
        if found:
            assert found["class"] == expected[0][0]
            assert found["area_um2"] == pytest.approx(expected[0][1].area * 0.25)
            assert len(found["outline"]) == 1 + len(expected[0][1].interiors)
        asked[x0, y0] = found and found["class"]
    # in the hole of the tumor is nothing
    assert list(asked.values()) == ["tumor", "stroma", None, None, "unread", None]


def test_thumbnail_is_the_overlay_without_its_legend(client, one, made):
    small = picture(client.get(f"/results/{one['id']}/{one['version']}/thumbnail.jpg"))
    assert small.size == (192, 141)
    with Image.open(made / "results" / "one" / "overlay.png") as overlay:
        expected = overlay.convert("RGB").crop((0, 0, 1500, 1102)).resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small, int) - np.asarray(expected, int)).mean() < 3


def test_the_page_starts_without_what_trains_networks(run):
    script = "import sys, lightmuseg.view.app; print({'monai', 'torch', 'ignite'} & sys.modules.keys())"
    assert run("python", "-c", script, truly=True) == (0, "set()\n", "")


def test_a_slide_that_is_gone_is_told_and_its_map_still_shown(own, tmp_path):
    path = own / "one" / "run.json"
    path.write_text(path.read_text().replace("one.tif", "gone.tif"))
    client = client_of(own)
    (one, _) = client.get("/results").json()["results"]
    details = client.get(f"/results/{one['id']}").json()
    assert details["slide"]["levels"] is None
    assert "gone.tif: is not there" in details["slide"]["fault"]
    address = f"/results/{one['id']}/{one['version']}"
    assert client.get(f"{address}/map/1/10/0/0.png").status_code == 200
    answer = client.get(f"{address}/slide/11/0/0.jpg")
    assert answer.status_code == 404
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("what", ["/etc/passwd", "/dev/zero", "/proc/self/environ", "/", "two.tif"])
def test_a_record_that_names_what_is_no_such_slide_opens_nothing(own, made, what):
    path = own / "one" / "run.json"
    if what == "two.tif":
        # another size than was segmented
        tifffile.imwrite(own / what, np.zeros((512, 512, 3), np.uint8), tile=(256, 256), photometric="rgb")
        what = str(own / what)
    path.write_text(path.read_text().replace(str(made / "one.tif"), what))
    client = client_of(own)
    (one, _) = client.get("/results").json()["results"]
    details = client.get(f"/results/{one['id']}").json()
    assert details["slide"]["levels"] is None
    assert details["map"]["levels"] is not None
    assert "root:" not in json.dumps(details)


def test_pixels_of_the_slide_that_cannot_be_read_are_striped_and_the_others_shown(own, made, tmp_path):
    slide = tmp_path / "broken.tif"
    shutil.copy(made / "one.tif", slide)
    with tifffile.TiffFile(slide) as file:
        offset, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    with open(slide, "r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    path = own / "one" / "run.json"
    path.write_text(path.read_text().replace(str(made / "one.tif"), str(slide)))
    client = client_of(own)
    (one, _) = client.get("/results").json()["results"]
    pixels = np.asarray(picture(client.get(f"/results/{one['id']}/{one['version']}/slide/11/0/0.jpg")), int)
    striped = np.where(np.add.outer(np.arange(250), np.arange(250)) // 4 % 2, 60, 128)[..., None]
    assert np.abs(pixels[:250, :250] - striped).mean() < 4
    good = np.asarray(openslide.OpenSlide(made / "one.tif").read_region((0, 0), 0, (512, 512)).convert("RGB"), int)
    assert np.abs(pixels - good)[264:].max() < 30


@pytest.mark.parametrize("harm", ["cut", "foreign", "bomb", "missing", "empty"])
def test_a_map_that_is_none_is_told_and_never_a_servers_error(own, harm):
    path = own / "one" / "classes.tif"
    if harm == "cut":
        os.truncate(path, 700)
    elif harm == "foreign":
        tifffile.imwrite(path, np.zeros((551, 750), np.uint16), tile=(256, 256))
    elif harm == "bomb":
        tifffile.imwrite(path, np.zeros((551, 750), np.uint8), tile=(8192, 8192), compression="zlib")
    elif harm == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    client = client_of(own)
    (one, _) = client.get("/results").json()["results"]
    details = client.get(f"/results/{one['id']}").json()
    answer = client.get(f"/results/{one['id']}/{one['version']}/map/1/10/0/0.png")
    assert answer.status_code == 404
    assert harm == "cut" or details["map"]["fault"]
    assert "classes.tif" in answer.json()["detail"]


def test_a_result_that_was_made_anew_has_other_addresses(own):
    client = client_of(own)
    (one, _) = client.get("/results").json()["results"]
    address = f"/results/{one['id']}/{one['version']}/thumbnail.jpg"
    first = client.get(address)
    assert client.get(address, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    path = own / "one" / "run.json"
    path.write_text(path.read_text() + "\n")
    client.get("/results")
    assert client.get(address).status_code == 404
