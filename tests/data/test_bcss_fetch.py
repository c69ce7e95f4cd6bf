import csv
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from bcss_stand_in import SLIDE_MPP, Handler, StandIn, picture, png
from PIL import Image
from skimage.transform import resize

from lightmuseg.cli.dataset_commands import Prepare
from lightmuseg.data import bcss_regions, download
from lightmuseg.data.bcss_fetch import fetch
from lightmuseg.data.bcss_plan import plan_fetch
from lightmuseg.data.bcss_regions import PublishedRegion, published_regions
from lightmuseg.data.tile_manifest import read_manifest
from lightmuseg.errors import InputError
from lightmuseg.files import sync_file
from lightmuseg.lock import locked

# Name, place in its slide, and size at level 0 of three regions of three patients.
REGIONS = {
    "TCGA-A1-AAAA-DX1": ((37, 21), (420, 360)),
    "TCGA-B2-BBBB-DX1": ((0, 60), (361, 300)),
    "TCGA-C3-CCCC-DX1": ((101, 0), (240, 431)),
}
WAYS = ("dsa", "gdc")


def codes(width, height, seed):
    patches = np.random.default_rng(seed).integers(0, 22, (height // 24 + 1, width // 24 + 1), dtype=np.uint8)
    return patches.repeat(24, axis=0).repeat(24, axis=1)[:height, :width]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The servers, what they have of three regions, and a folder to fetch into."""
    servers = StandIn()
    slides, masks = {}, {}
    for seed, (name, (place0, size0)) in enumerate(REGIONS.items()):
        slides[name], masks[name] = picture(600, 500, seed), codes(*size0, seed)
        servers.add(name, place0, slides[name], masks[name])
    servers.write_table(tmp_path / "regions.csv")
    monkeypatch.setattr(bcss_regions, "TABLE", tmp_path / "regions.csv")
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(download, "LONGEST_PAUSE_S", 0.002)
    with servers.served() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield SimpleNamespace(servers=servers, slides=slides, masks=masks, folder=tmp_path / "BCSS µ 1")


def fetched(world, progress=None, **options):
    plan = plan_fetch(world.folder, **options)
    fetch(plan, progress)
    return plan


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def names(kind, regions=REGIONS):
    return [
        f"{kind}/{name}_xmin{x0}_ymin{y0}_MPP-0.2500.png" for name, ((x0, y0), _) in REGIONS.items() if name in regions
    ]


def complete(regions=REGIONS):
    return sorted([".fetching.lock", *names("masks", regions), *names("rgbs", regions)])


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(words) + r"[^\n]*\Z")


@pytest.mark.parametrize("way", WAYS)
def test_regions_have_their_slides_pixels_at_the_true_scale(world, way):
    fetched(world, regions_from=way)
    assert files(world.folder) == complete()
    for path, (name, ((x0, y0), (width0, height0))) in zip(names("rgbs"), REGIONS.items()):
        pixels = np.asarray(Image.open(world.folder / path))
        size = int(width0 * SLIDE_MPP / 0.30), int(height0 * SLIDE_MPP / 0.30)
        cut = Image.fromarray(world.slides[name][y0 : y0 + height0, x0 : x0 + width0])
        expected = np.asarray(cut.resize(size, Image.Resampling.LANCZOS)).astype(int)
        assert pixels.shape == expected.shape
        # at the edge a slide goes on, and a cut picture does not
        assert np.abs(pixels - expected)[4:-4, 4:-4].max() <= 1


@pytest.mark.parametrize("way", WAYS)
def test_masks_are_resized_to_their_pictures_as_the_official_script_does(world, way):
    fetched(world, regions_from=way)
    for path, name in zip(names("masks"), REGIONS):
        mask = np.asarray(Image.open(world.folder / path))
        expected = resize(
            world.masks[name], mask.shape, order=0, preserve_range=True, anti_aliasing=False
        ).astype(np.uint8)  # fmt: skip
        assert mask.shape == Image.open(world.folder / path.replace("masks", "rgbs")).size[::-1]
        # which of two neighbours that are equally near is nearest is anybody's choice
        assert np.mean(mask != expected) < 0.01
        assert set(np.unique(mask)) <= set(np.unique(world.masks[name]))


def test_the_command_says_what_it_takes_then_fetches_and_prepares(world, capsys):
    output = world.folder / "tiles"
    Prepare().bcss(
        fetch=str(world.folder), output=str(output), tile_size=64, val="TCGA-B2-BBBB", test="TCGA-C3-CCCC", check=True
    )
    said, shown = capsys.readouterr()
    estimate, *lines = said.splitlines()
    assert estimate.startswith(f"{world.folder}: 3 of 3 regions to fetch, 3 masks from 127.0.0.1:")
    assert "3 pictures from 127.0.0.1:" in estimate
    assert "fetching: 100%" in shown
    assert lines[0].startswith(f"{output}: ")
    assert lines[0].endswith("of 0.3 um/px")
    manifest = read_manifest(output)
    assert {tile["split"] for tile in manifest["tiles"]} == {"train", "val", "test"}
    assert manifest["mpp"] == bcss_regions.REGION_MPP == 0.30


def test_what_is_there_is_not_asked_for_again(world):
    fetched(world, regions_from="dsa")
    world.servers.asked.clear()
    plan = fetched(world, regions_from="dsa")
    assert world.servers.asked == []
    assert str(plan) == f"{world.folder}: all 3 regions are there"


def test_to_a_picture_that_somebody_put_there_only_the_mask_is_fetched(world):
    path = world.folder / names("rgbs")[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(png(picture(300, 250, 9)))
    own = path.read_bytes()
    fetched(world)
    assert files(world.folder) == complete()
    assert path.read_bytes() == own
    assert Image.open(world.folder / names("masks")[1]).size == (300, 250)
    assert world.servers.counted("/girder/api/v1/item/5bbdee000000000000000001") == 0


def test_to_a_mask_that_somebody_put_there_only_the_picture_is_fetched(world):
    path = world.folder / names("masks")[0]
    path.parent.mkdir(parents=True)
    own = codes(350, 300, 9)
    path.write_bytes(png(own))
    plan = plan_fetch(world.folder)
    assert "3 of 3 regions to fetch, 2 masks from" in str(plan)
    fetch(plan)
    assert files(world.folder) == complete()
    np.testing.assert_array_equal(np.asarray(Image.open(path)), own)
    assert world.servers.counted("/store/13000000") == 0


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("masks", (420, 360), "has 420 x 360 pixels, its picture 350 x 300; move it away"),
        ("masks", (350, 200), "has 350 x 200 pixels, its picture 350 x 300; move it away"),
        ("rgbs", (350, 200), "has 350 x 200 pixels, its region 420 x 360 at level 0, of another shape; move it away"),
    ],
)
def test_a_file_that_somebody_put_there_is_not_stretched(world, kind, size, words):
    path = world.folder / names(kind)[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(png(codes(*size, 9) if kind == "masks" else picture(*size, 9)))
    own = path.read_bytes()
    with refused(re.escape(str(path)), words):
        fetched(world, limit=1)
    assert path.read_bytes() == own


def test_the_first_regions_and_those_of_patients_can_be_had_alone(world):
    fetched(world, limit=1)
    assert files(world.folder) == complete(["TCGA-A1-AAAA-DX1"])
    fetched(world, patients=["TCGA-C3-CCCC"])
    assert files(world.folder) == complete(["TCGA-A1-AAAA-DX1", "TCGA-C3-CCCC-DX1"])
    with refused("TCGA-A1-A0SK", "no patient of BCSS"):
        plan_fetch(world.folder, ["TCGA-A1-A0SK"])
    for options in ({"limit": 0}, {"parallel": 0}, {"parallel": 99}, {"regions_from": "ftp"}):
        with refused(next(iter(options))):
            plan_fetch(world.folder, **options)


def test_a_slide_goes_on_where_the_connection_was_cut(world):
    world.servers.wrong = {"/gdc/data": ["cut", 503, "cut"]}
    fetched(world, regions_from="gdc", limit=1, keep_slides=True)
    ranges = [given for path, given in world.servers.asked if path.startswith("/gdc/data")]
    (about, content), *_ = world.servers.files.values()
    half = len(content) // 2
    assert ranges == [None, f"bytes={half}-", f"bytes={half}-", f"bytes={half + (len(content) - half) // 2}-"]
    assert (world.folder / "slides" / about["file_name"]).read_bytes() == content


@pytest.mark.parametrize("way", WAYS)
def test_faults_that_pass_are_waited_out(world, way):
    world.servers.wrong = {
        "/figshare": [503, "cut"], "/store": [429, "cut"],
        "/gdc/files": [500, "cut"], "/gdc/data": ["cut", 502],
        "/girder/api/v1/item/5bbdee000000000000000000/tiles/region": ["cut", 503],
        "/girder/api/v1/item/5bbdee000000000000000001": [504, "cut"],
    }  # fmt: skip
    fetched(world, regions_from=way)
    assert files(world.folder) == complete()


def test_where_the_region_server_is_not_there_whole_slides_are_fetched(world, monkeypatch, caplog):
    monkeypatch.setenv("LIGHTMUSEG_REGION_SERVER", "http://127.0.0.1:9/api/v1")
    plan = fetched(world)
    assert files(world.folder) == complete()
    assert (len(plan.served), len(plan.slides)) == (0, 3)
    assert "127.0.0.1:9" in caplog.text
    with refused("127.0.0.1:9", "by hand"):
        plan_fetch(world.folder / "other", regions_from="dsa")


def test_a_slide_that_the_region_server_has_not_is_cut_from_the_whole(world, caplog):
    world.servers.names["5bbdee000000000000000001"] = "another.svs"
    plan = fetched(world)
    assert (sorted(plan.served), list(plan.slides)) == (["TCGA-A1-AAAA-DX1", "TCGA-C3-CCCC-DX1"], ["TCGA-B2-BBBB-DX1"])
    assert files(world.folder) == complete()
    assert "has no slide TCGA-B2-BBBB" in caplog.text


def test_a_server_with_other_identifiers_is_searched_by_name(world):
    world.servers.knows_items = False
    fetched(world, regions_from="dsa")
    assert files(world.folder) == complete()


def test_without_a_network_one_line_names_the_host(world, monkeypatch):
    for name in ("GDC", "REGION_SERVER", "FIGSHARE"):
        monkeypatch.setenv(f"LIGHTMUSEG_{name}", "http://127.0.0.1:9")
    with refused("127.0.0.1:9/files: cannot be reached", "https_proxy", "by hand", "--source"):
        plan_fetch(world.folder)
    assert not world.folder.exists()


@pytest.mark.parametrize("address", ["http://[", "ftp://there", "there", "https://"])
def test_an_environment_that_names_no_server_is_refused(world, monkeypatch, address):
    monkeypatch.setenv("LIGHTMUSEG_GDC", address)
    with refused(f"LIGHTMUSEG_GDC={re.escape(address)}: is no address", "https://api.gdc"):
        plan_fetch(world.folder, regions_from="gdc")


def test_what_a_server_says_is_not_repeated_at_length(world, monkeypatch):
    name = world.servers.names["5bbdee000000000000000000"]
    for number in range(50):
        world.servers.add_file(f"{name[:23]}.{number}{'x' * 200}.svs", b"")
    world.servers.files = dict(list(world.servers.files.items())[1:])
    monkeypatch.setattr(Handler, "tiles", lambda self, item, **_: self.json({"mm_x": "9" * 100_000}))
    for way, words in (("gdc", "not exactly one slide"), ("dsa", "mm_x 999")):
        with refused("1 of 1 regions", words) as caught:
            fetched(world, regions_from=way, limit=1)
        assert len(str(caught.value)) < 1500


def test_a_region_that_fails_keeps_no_other_from_being_fetched(world):
    (about, _), *_ = world.servers.files.values()
    about["md5sum"] = "0" * 32
    with refused("1 of 3 regions", "MD5", "not 00000000", "Give the command again"):
        fetched(world, regions_from="gdc")
    assert files(world.folder) == complete([*REGIONS][1:])
    about["md5sum"] = None
    with refused("1 of 3 regions", "no file_id, md5sum and file_size"):
        fetched(world, regions_from="gdc")


def test_a_slide_that_the_gdc_has_not_or_twice_is_named(world):
    (file_id, (about, content)), *_ = world.servers.files.items()
    slide, other = about["file_name"], f"{about['file_name'][:23]}.{'0' * 36}.svs"
    # the one of the very name is meant
    world.servers.add_file(other, b"other")
    fetched(world, regions_from="gdc", limit=1)
    shutil.rmtree(world.folder)
    about["file_name"] = f"{slide[:23]}.{'1' * 36}.svs"
    with refused(f"not exactly one slide {slide}", "1111.*0000|0000.*1111"):
        fetched(world, regions_from="gdc", limit=1)
    for fields in ({"experimental_strategy": "Tissue Slide"}, {"file_name": f"{slide[:20]}DX2.svs"}):
        world.servers.files = {file_id: (about | {"file_name": slide} | fields, content)}
        with refused(f"not exactly one slide {slide}", "found none"):
            fetched(world, regions_from="gdc", limit=1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"file_id": "../../etc/passwd/aaaaaaaaaaaaaaaaaaaaa"}, "no file_id"), ({"file_size": 10**12}, "no file_id"),
        ({"file_size": "7"}, "no file_id"), ({"file_size": True}, "no file_id"), ({"file_size": 1000}, "more than"),
        ({"md5sum": "../" * 10 + "aa"}, "no file_id"),
    ],
)  # fmt: skip
def test_what_the_gdc_states_is_checked(world, fields, words):
    (file_id, (about, content)), *_ = world.servers.files.items()
    world.servers.files = {file_id: (about | fields, content)}
    with refused("1 of 1 regions", words):
        fetched(world, regions_from="gdc", limit=1)
    assert [name for name in files(world.folder) if name.endswith((".png", ".svs"))] == []
    assert [name for path in world.folder.parent.rglob("passwd") for name in path.name] == []


def test_an_identifier_from_a_search_stays_a_part_of_the_address(world):
    world.servers.knows_items = False
    world.servers.names = {"../../elsewhere": world.servers.names["5bbdee000000000000000000"]}
    with refused("1 of 1 regions", "404"):
        fetched(world, regions_from="dsa", limit=1)
    assert [path for path, _ in world.servers.asked if "elsewhere" in path] == [
        "/girder/api/v1/item/..%2F..%2Felsewhere/tiles"
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(np.zeros((360, 300), np.uint8)), "300 x 360 pixels, its region 420 x 360"),
        (png(np.full((360, 420), 22, np.uint8)), "unknown code 22"),
        (png(np.zeros((360, 420, 3), np.uint8)), "a mask is one channel"),
        (png(codes(420, 360, 0))[:-400], "cannot be read whole|no PNG"),
        (b"<html>not found</html>", "no PNG"),
        (png(np.zeros((3600, 4200), np.uint8)), "4200 x 3600"),
    ],
)  # fmt: skip
def test_a_mask_of_something_else_is_refused(world, content, words):
    world.servers.masks["13000000"] = content
    with refused("figshare/files/13000000, the mask of TCGA-A1-AAAA-DX1", words):
        fetched(world, limit=1)
    assert not (world.folder / "masks").exists()


def test_a_picture_of_another_size_is_refused(world, monkeypatch):
    monkeypatch.setattr(bcss_regions.PublishedRegion, "size_at", lambda region, mpp: (100, 100))
    with refused("picture of TCGA-A1-AAAA-DX1", "350 x 300 pixels, not 100 x 100"):
        fetched(world, regions_from="dsa", limit=1)


def test_a_slide_that_does_not_hold_its_region_is_refused(world):
    *_, item = world.servers.rows[0]
    world.servers.slides[item] = picture(300, 200, 0)
    servers = StandIn()
    name = servers.add("TCGA-A1-AAAA-DX1", (0, 0), picture(300, 200, 0), codes(10, 10, 0))
    world.servers.files = servers.files
    assert name == world.servers.rows[0][6]
    with refused("300 x 200 pixels do not hold region TCGA-A1-AAAA-DX1"):
        fetched(world, regions_from="gdc", limit=1)


def test_slides_are_removed_unless_they_are_to_stay_or_were_there(world):
    (about, content), *_ = world.servers.files.values()
    own = world.folder / "slides" / about["file_name"]
    own.parent.mkdir(parents=True)
    own.write_bytes(content)
    fetched(world, regions_from="gdc")
    assert list((world.folder / "slides").iterdir()) == [own]
    assert world.servers.counted("/gdc/data") == 2
    shutil.rmtree(world.folder)
    fetched(world, regions_from="gdc", keep_slides=True)
    assert len(list((world.folder / "slides").iterdir())) == 3


def test_disk_and_time_are_estimated_before_anything_is_fetched(world, monkeypatch):
    sizes = sorted(len(content) for _, content in world.servers.files.values())
    pictures = sum(1.8 * int(width0 / 1.2) * int(height0 / 1.2) for _, (width0, height0) in REGIONS.values())
    for keep, slides in ((False, sizes[-1:]), (True, sizes)):
        plan = plan_fetch(world.folder, regions_from="gdc", keep_slides=keep, parallel=1)
        assert plan.bytes_to_fetch == sum(sizes)
        assert plan.bytes_on_disk == pytest.approx(sum(slides) + pictures, abs=3)
    assert plan_fetch(world.folder, regions_from="dsa").bytes_to_fetch == pytest.approx(pictures, abs=3)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100_000))
    with refused("3 of 3 regions to fetch", "MB of disk, of which 0 MB are free", "--limit"):
        plan_fetch(world.folder, regions_from="gdc")
    assert not world.folder.exists()


@pytest.mark.parametrize("way", WAYS)
def test_progress_ends_where_all_bytes_are_there(world, way):
    shown = []
    fetched(world, lambda *words: shown.append(words), regions_from=way)
    assert all(step == "fetching" and 0 <= done <= total for step, done, total in shown)
    assert shown[-1][1] == shown[-1][2] > 0
    if way == "gdc":
        assert shown[-1][2] == sum(len(content) for _, content in world.servers.files.values())


def test_two_processes_do_not_fetch_into_one_folder(world):
    plan = plan_fetch(world.folder)
    world.folder.mkdir()
    with locked(world.folder / ".fetching.lock", timeout=0), refused("another process fetches into it"):
        fetch(plan)


def test_where_everything_fails_the_rest_is_left(world):
    servers, (place0, _) = world.servers, REGIONS["TCGA-A1-AAAA-DX1"]
    for number in range(30):
        servers.add(f"TCGA-D4-{number:04d}-DX1", place0, world.slides["TCGA-A1-AAAA-DX1"], codes(40, 40, 0))
    servers.write_table(bcss_regions.TABLE)
    plan = plan_fetch(world.folder, regions_from="dsa", parallel=2)
    servers.masks.clear()
    servers.asked.clear()
    with refused("33 of 33 regions could not be fetched"):
        fetch(plan)
    assert servers.counted("/store") < 20


def test_a_disk_that_is_full_ends_it(world, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    plan = plan_fetch(world.folder, regions_from="dsa")
    monkeypatch.setattr(sync_file.__module__ + ".sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(plan)
    assert [name for name in files(world.folder) if name.endswith(".png")] == []


def test_the_table_is_the_published_one(data):
    with open(data / "bcss" / "meta" / "roiBounds.csv", newline="") as file:
        bounds = {row.pop(""): row for row in csv.DictReader(file)}
    with open(data / "bcss" / "meta" / "slide_magnifications.csv", newline="") as file:
        slides = {row[""]: row for row in csv.DictReader(file)}
    regions = published_regions()
    assert [region.name for region in regions] == list(bounds)
    assert len(regions) == 151
    for region in regions:
        row, slide = bounds[region.name], slides[region.patient]
        x0, y0, right0, lower0 = (int(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
        assert (region.x0, region.y0, region.x0 + region.width0, region.y0 + region.height0) == (x0, y0, right0, lower0)
        assert row["mask_link"] == f"https://ndownloader.figshare.com/files/{region.mask}"
        assert (region.slide, region.item) == (slide["name"], slide["_id"])


def test_sizes_are_those_of_the_published_masks(data):
    published = {region.file_name: region for region in published_regions()}
    paths = [*(data / "bcss" / "masks").iterdir(), *(data / "bcss" / "masks_without_rgb").iterdir()]
    assert len(paths) == 13
    missed = []
    for path in paths:
        size, region = Image.open(path).size, published[path.name]
        # slides state their um/px in four decimals
        near = round(0.30 * size[0] / region.width0, 4)
        stated = [near + n / 10_000 for n in (-1, 0, 1)]
        assert min(np.abs(np.subtract(region.size_at(mpp), size)).max() for mpp in stated) <= 1
        missed += [path.name[:12]] * (size not in [region.size_at(mpp) for mpp in stated])
    assert missed == ["TCGA-BH-A0BL"]


def test_a_region_is_named_as_its_published_files():
    region = PublishedRegion("TCGA-A2-A0D2-DX1", 96887, 22299, 4102, 2926, "1", "TCGA-A2-A0D2-01Z.svs", "a")
    assert region.file_name == "TCGA-A2-A0D2-DX1_xmin96887_ymin22299_MPP-0.2500.png"
    assert region.size_at(0.248) == (3391, 2418)
