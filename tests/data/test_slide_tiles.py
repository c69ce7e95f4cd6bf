import csv
import json
import math
import multiprocessing
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from dicom_slide import write_dicom
from monai.data import DataLoader, Dataset
from monai.transforms import Compose
from PIL import Image
from torch.utils.data import ConcatDataset

from lightmuseg.data import load_tiles
from lightmuseg.data.bcss import rendered_mpp
from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.data.slide_loading import LoadMaskTiled, LoadSlideTiled, SlideTile
from lightmuseg.data.slide_tiles import load_slide_tiles
from lightmuseg.data.tile_manifest import FORMAT, MANIFEST, read_manifest
from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers import open_slide
from lightmuseg.wsi.readers.opening import _kept_open

TILE = 128
BACKENDS = ("cucim", "openslide")
# (width, height) of each region; the first two are of one slide, the last is smaller than a tile.
REGIONS = {
    "TCGA-A1-AAAA-DX1_xmin10_ymin20_MPP-0.2500": (300, 200),
    "TCGA-A1-AAAA-DX1_xmin333_ymin41_MPP-0.2500": (130, 197),
    "TCGA-B2-BBBB-DX1_xmin0_ymin7_MPP-0.2500": (141, 128),
    "TCGA-C3-CCCC-DX2_xmin55_ymin5_MPP-0.2500": (64, 97),
}
SLIDES = {
    "TCGA-A1-AAAA-DX1": "4f2c/TCGA-A1-AAAA-01Z-00-DX1.0E12A1.tif",
    "TCGA-B2-BBBB-DX1": "TCGA-B2-BBBB-DX1_again.tiff",
    "TCGA-C3-CCCC-DX2": "TCGA-C3-CCCC-01A-02-DX2.77.tif",
}
# The pixels of regions that BCSS's names give 0.25 um/px.
TRUE_MPP = 0.30


def picture(width, height, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def codes(width, height, seed):
    patches = np.random.default_rng(seed).integers(0, 22, (height // 24 + 1, width // 24 + 1), dtype=np.uint8)
    return patches.repeat(24, axis=0).repeat(24, axis=1)[:height, :width]


def write_slide(path, pixels, mpp=TRUE_MPP, **options):
    """A lossless tiled pyramid of two levels, the second by Pillow's box filter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "adobe_deflate", **options}
    half = Image.fromarray(pixels).reduce(2)
    with tifffile.TiffWriter(path) as file:
        scale = {"resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
        file.write(pixels, **scale, **options)
        file.write(np.asarray(half), subfiletype=1, **options)
    return path


def write_source(folder, slides, masks, mpp=TRUE_MPP):
    """A BCSS-like folder whose regions are cut from slides, given and returned by file stem."""
    for kind in ("rgbs", "masks"):
        (folder / kind).mkdir(parents=True)
    for stem, mask in masks.items():
        name, x0, y0 = re.match(r"(.+)_xmin(\d+)_ymin(\d+)", stem).groups()
        rows, columns = (slice(int(start), int(start) + n) for start, n in zip((y0, x0), mask.shape))
        Image.fromarray(slides[name][rows, columns]).save(folder / "rgbs" / f"{stem}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    for name, pixels in slides.items():
        write_slide(folder / "slides" / SLIDES.get(name, f"{name}.tif"), pixels, mpp)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The tiles of the four regions in files, and the slides they were cut from."""
    slides = {name: picture(520, 260, seed) for seed, name in enumerate(SLIDES)}
    masks = {stem: codes(*size, seed) for seed, (stem, size) in enumerate(REGIONS.items())}
    folder = write_source(tmp_path_factory.mktemp("Schnitte µ") / "bcss 1", slides, masks)
    output = folder / "tiles"
    prepare_bcss(folder, output, tile_size=TILE, val=["TCGA-B2-BBBB"], test=["TCGA-C3-CCCC"])
    return SimpleNamespace(output=output, slides=folder / "slides", masks=folder / "masks", folder=folder)


def load(prepared, split="train", **options):
    return load_slide_tiles(prepared.output, split, prepared.slides, prepared.masks, **options)


def reading(backend="auto"):
    return Compose([LoadSlideTiled("image", backend), LoadMaskTiled("label")])


def cut_pixels(tile, key):
    pixels = np.asarray(Image.open(tile[key]))
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pixels_and_codes_are_those_of_the_cut_tiles(prepared, split, backend):
    cut, read = load_tiles(prepared.output, split), load(prepared, split)
    assert len(cut) == len(read) > 0
    for expected, item in zip(cut, map(reading(backend), read)):
        assert item["image"].shape == (3, TILE, TILE)
        assert item["label"].shape == (1, TILE, TILE)
        for key in ("image", "label"):
            assert item[key].dtype == torch.float32
            assert np.array_equal(item[key].numpy(), cut_pixels(expected, key))


def test_items_say_what_those_of_cut_tiles_say(prepared):
    for split in ("train", "val", "test"):
        for cut, read in zip(load_tiles(prepared.output, split), load(prepared, split)):
            others = cut.keys() - {"image", "label"}
            assert {key: read[key] for key in read.keys() - {"image", "label"}} == {key: cut[key] for key in others}


def test_each_tile_has_its_name(prepared):
    items = [reading()(item) for item in load(prepared)]
    names = [item["image"].meta["filename_or_obj"] for item in items]
    assert names == [f"{item['roi']}_x{item['x']}_y{item['y']}" for item in items]
    assert names == [item["label"].meta["filename_or_obj"] for item in items]
    assert len(set(names)) == len(names)


def test_manifest_without_tile_files_is_enough(prepared, tmp_path):
    options = {"tile_size": TILE, "val": ["TCGA-B2-BBBB"], "test": ["TCGA-C3-CCCC"]}
    prepare_bcss(prepared.folder, tmp_path / "out", tile_files="none", **options)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MANIFEST]
    assert load_slide_tiles(tmp_path / "out", "train", prepared.slides, prepared.masks) == load(prepared)


@pytest.mark.parametrize("coding", ["bcss", "tumor"])
def test_masks_are_read_in_the_datasets_coding(tmp_path, coding):
    values = {"bcss": 20, "tumor": 255}
    mask = np.zeros((150, 140), np.uint8)
    mask[10:60, 90:] = values[coding]
    name = "TCGA-A1-AAAA-DX1"
    folder = write_source(tmp_path / "in", {name: picture(300, 300, 0)}, {f"{name}_xmin9_ymin4_MPP-0.2500": mask})
    place = SimpleNamespace(output=tmp_path / "out", slides=folder / "slides", masks=folder / "masks")
    prepare_bcss(folder, place.output, mask_coding=coding, tile_size=TILE, val_fraction=0, test_fraction=0)
    for cut, item in zip(load_tiles(place.output, "train"), map(reading(), load(place))):
        assert np.array_equal(item["label"].numpy(), cut_pixels(cut, "label"))


def place_of(slide, x0, y0, step, width, height):
    """A tile as large as the longer side, ``step`` level-0 pixels to one of its own."""
    box0 = x0, y0, width * step, height * step
    return SlideTile("tile", str(slide), TRUE_MPP, box0, (width, height), max(width, height))


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_level_is_read_where_it_has_the_regions_scale(tmp_path, backend):
    pixels = picture(600, 500, 5)
    path = write_slide(tmp_path / "slide.tif", pixels, 0.15)
    half = np.asarray(Image.fromarray(pixels).reduce(2))
    tile = place_of(path, 42, 60, 2.0, 100, 90)
    image = LoadSlideTiled("image", backend)({"image": tile})["image"].numpy()
    assert np.array_equal(image[:, :90], half[30:120, 21:121].transpose(2, 0, 1))
    assert (image[:, 90:] == 255).all()


def whole_resized(pixels, step):
    """A picture resampled in one piece, and level-0 pixels of it to one of the result's."""
    height, width = pixels.shape[:2]
    size = round(width / step), round(height / step)
    filter = Image.Resampling.LANCZOS if step > 1 else Image.Resampling.BICUBIC
    box = (0, 0, min(width, size[0] * step), min(height, size[1] * step))
    return np.asarray(Image.fromarray(pixels).resize(size, filter, box=box), int)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step", [0.5, 0.992, 1.19, 1.7])
@pytest.mark.parametrize("corner", [(0, 0), (30, 47), (72, 22)])
def test_other_scales_are_resampled_as_the_whole_slide_would_be(tmp_path, backend, step, corner):
    # multiples of 400 times each step: the whole has no rounding of its own
    pixels = picture(400, 400, 6)
    whole = whole_resized(pixels, step)
    path = write_slide(tmp_path / "slide.tif", pixels)
    x, y = corner
    tile = place_of(path, x * step, y * step, step, 150, 160)
    image = LoadSlideTiled("image", backend)({"image": tile})["image"].numpy()[:, :, :150].transpose(1, 2, 0)
    # Pillow's weights are of 8 bits, and their phase is rounded
    assert np.abs(image - whole[y : y + 160, x : x + 150]).max() <= 2


@pytest.mark.parametrize("step", [0.5, 1.25])
def test_filter_ends_at_the_slides_edge(tmp_path, step):
    pixels = picture(400, 400, 6) // 2
    whole = whole_resized(pixels, step)
    x, y = whole.shape[1] - 100, whole.shape[0] - 90
    tile = place_of(write_slide(tmp_path / "slide.tif", pixels), x * step, y * step, step, 100, 90)
    image = LoadSlideTiled("image")({"image": tile})["image"].numpy()[:, :90].transpose(1, 2, 0)
    assert np.abs(image - whole[y:, x:]).max() <= 2


def test_coarse_scale_is_resampled_from_the_second_level(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    half = np.asarray(Image.fromarray(pixels).reduce(2))
    tile = place_of(write_slide(tmp_path / "slide.tif", pixels), 50, 100, 2.5, 64, 64)
    image = LoadSlideTiled("image")({"image": tile})["image"].numpy().transpose(1, 2, 0)
    expected = whole_resized(half, 1.25)[40:104, 20:84]
    assert np.abs(image - expected).max() <= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_outside_the_slide_are_white(tmp_path, backend):
    pixels = picture(200, 150, 7) // 2
    path = write_slide(tmp_path / "slide.tif", pixels)
    tile = place_of(path, 150, 100, 1.0, 64, 64)
    for one in (tile, place_of(path, 150, 100, 1.25, 64, 64), place_of(path, 500, 100, 1.0, 64, 64)):
        image = LoadSlideTiled("image", backend)({"image": one})["image"].numpy()
        assert (image[:, 52:] == 255).all()
        assert (image[:, :, 52:] == 255).all()
    image = LoadSlideTiled("image", backend)({"image": tile})["image"].numpy()
    assert np.array_equal(image[:, :50, :50], pixels[100:, 150:].transpose(2, 0, 1))


# In the tissue of the SVS.
X0, Y0 = 1001, 1203


@pytest.fixture
def svs(data):
    """A real JPEG slide of one level at 0.499 um/px, and its pixels by a third decoder."""
    path = data / "slides" / "CMU-1-Small-Region.svs"
    with Image.open(path) as image:
        return SimpleNamespace(path=path, pixels=np.array(image.convert("RGB")))


def svs_dataset(svs, folder, mpp, size):
    """A manifest of one region of the SVS of one um/px and size in pixels; and its mask."""
    roi = f"CMU-1-Small_xmin{X0}_ymin{Y0}_MPP-{mpp}"
    mask = codes(*size, 3)
    (folder / "masks").mkdir(parents=True)
    Image.fromarray(mask).save(folder / "masks" / f"{roi}.png")
    source = {"roi": roi, "patient": "CMU-1", "x0": X0, "y0": Y0, "mpp": mpp, "width": size[0], "height": size[1],
              "mask": f"{roi}.png", "mask_sha256": sha256_of(folder / "masks" / f"{roi}.png")}  # fmt: skip
    tiles = [
        {"split": "train", "patient": "CMU-1", "roi": roi, "x": x, "y": y, "code_pixels": {}}
        for x, y in ((0, 0), (97, 160))
    ]
    manifest = {"format": FORMAT, "options": {"dataset": "other"}, "tile_size": 256, "sources": [source],
                "tiles": tiles}  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return load_slide_tiles(folder, "train", svs.path.parent, folder / "masks"), mask


@pytest.mark.parametrize("backend", BACKENDS)
def test_real_slide_is_read_as_another_decoder_does(svs, tmp_path, backend):
    items, mask = svs_dataset(svs, tmp_path, 0.499, (400, 500))
    for item in map(reading(backend), items):
        x, y = item["x"], item["y"]
        expected = svs.pixels[Y0 + y : Y0 + y + 256, X0 + x : X0 + x + 256].transpose(2, 0, 1).astype(int)
        # two JPEG decoders
        assert np.abs(item["image"].numpy() - expected).max() <= 2
        assert np.array_equal(item["label"][0].numpy(), mask[y : y + 256, x : x + 256])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mpp", [0.25, 0.6, 1.0])
def test_real_slide_is_resampled_to_the_regions_scale(svs, tmp_path, backend, mpp):
    size, step = (400, 490), mpp / 0.499
    items, _ = svs_dataset(svs, tmp_path, mpp, size)
    box = (X0, Y0, X0 + math.ceil(size[0] * step), Y0 + math.ceil(size[1] * step))
    filter = Image.Resampling.LANCZOS if step > 1 else Image.Resampling.BICUBIC
    region = np.asarray(Image.fromarray(svs.pixels).resize(size, filter, box=box), int)
    for item in map(reading(backend), items):
        x, y = item["x"], item["y"]
        expected = region[y : y + 256, x : x + 256].transpose(2, 0, 1)
        assert np.abs(item["image"].numpy() - expected).max() <= 4


def test_sizes_of_real_regions_show_their_true_scale(data):
    """Level-0 widths are the dataset's own, 0.2521 um/px is what the slide of this patient says."""
    with (data / "bcss" / "meta" / "roiBounds.csv").open() as file:
        bounds = {row[0]: [int(value) for value in row[1:5]] for row in list(csv.reader(file))[1:]}
    x0, _, x1, _ = bounds["TCGA-A1-A0SP-DX1"]
    mask = next((data / "bcss" / "masks_without_rgb").glob("TCGA-A1-A0SP-DX1*"))
    assert rendered_mpp(0.25) * image_width(mask) / (x1 - x0) == pytest.approx(0.2521, abs=1e-4)


def image_width(path):
    with Image.open(path) as image:
        return image.width


@pytest.fixture(params=["drawn", "real"])
def level0(request):
    """A slide's pixels, drawn ones or those of a real region."""
    if request.param == "drawn":
        return picture(900, 700, 8)
    regions = request.getfixturevalue("data") / "bcss" / "rgbs"
    return np.asarray(Image.open(next(regions.glob("TCGA-A2-A0D2*"))))[300:1000, 900:1800]


@pytest.mark.parametrize(("mpp", "most"), [(0.30, 0), (0.252, 0.1), (0.31, 0.1)])
def test_region_made_as_bcss_made_them_is_found_again(level0, tmp_path, mpp, most):
    """The server's steps by hand: crop level 0, resample to 0.30 um/px, whole pixels rounded down."""
    name, (left, top, right, lower) = "TCGA-A2-A0D2-DX1", (110, 70, 730, 590)
    size = int((right - left) * mpp / 0.3), int((lower - top) * mpp / 0.3)
    folder = tmp_path / "bcss"
    for kind in ("rgbs", "masks"):
        (folder / kind).mkdir(parents=True)
    stem = f"{name}_xmin{left}_ymin{top}_MPP-0.2500.png"
    filter = Image.Resampling.LANCZOS if mpp < 0.3 else Image.Resampling.BICUBIC
    Image.fromarray(level0).crop((left, top, right, lower)).resize(size, filter).save(folder / "rgbs" / stem)
    Image.fromarray(codes(*size, 1)).save(folder / "masks" / stem)
    write_slide(folder / "slides" / f"{name}.tif", level0, mpp)
    place = SimpleNamespace(output=tmp_path / "out", slides=folder / "slides", masks=folder / "masks")

    def difference(backend="auto", **scale):
        prepare_bcss(folder, place.output, tile_size=256, val_fraction=0, test_fraction=0, **scale)
        pairs = zip(load_tiles(place.output, "train"), map(reading(backend), load(place)))
        return np.mean([np.abs(item["image"].numpy() - cut_pixels(cut, "image")).mean() for cut, item in pairs])

    # a tile's box and the region's: the filter's weights differ by their rounding, and at the region's edge
    for backend in BACKENDS:
        assert difference(backend) <= most
    shutil.rmtree(place.output)
    assert difference(mpp=0.25) > 5


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_given_scale_of_the_regions_goes_before_their_names(tmp_path, mpp):
    name = "TCGA-A1-AAAA-DX1"
    masks = {f"{name}_xmin9_ymin4_MPP-0.2500": codes(200, 150, 1)}
    folder = write_source(tmp_path / "in", {name: picture(300, 300, 0)}, masks, mpp=mpp)
    place = SimpleNamespace(output=tmp_path / "out", slides=folder / "slides", masks=folder / "masks")
    prepare_bcss(folder, place.output, tile_size=TILE, val_fraction=0, test_fraction=0, mpp=mpp)
    for cut, item in zip(load_tiles(place.output, "train"), map(reading(), load(place))):
        assert np.array_equal(item["image"].numpy(), cut_pixels(cut, "image"))


@pytest.mark.parametrize("tile_mpp", [0.2, 0.45])
def test_tiles_of_another_scale_than_the_regions_are_read_at_it(tmp_path, tile_mpp):
    """Of regions of two scales, from slides of two; the slides are not those of the regions' pixels to the bit."""
    names = {"TCGA-A1-AAAA-DX1": ("0.2500", 0.3), "TCGA-B2-BBBB-DX1": ("0.5000", 0.5)}
    folder = tmp_path / "in"
    for number, (name, (named, mpp)) in enumerate(names.items()):
        mask = {f"{name}_xmin30_ymin20_MPP-{named}": codes(250, 190, number)}
        write_source(tmp_path / name, {name: picture(400, 300, number)}, mask, mpp=mpp)
        shutil.copytree(tmp_path / name, folder, dirs_exist_ok=True)
    place = SimpleNamespace(output=tmp_path / "out", slides=folder / "slides", masks=folder / "masks")
    prepare_bcss(folder, place.output, tile_size=TILE, val_fraction=0, test_fraction=0, tile_mpp=tile_mpp)
    cuts, items = load_tiles(place.output, "train"), load(place)
    assert len(cuts) == len(items) > 1
    for cut, item in zip(cuts, map(reading(), items)):
        assert np.array_equal(item["label"].numpy(), cut_pixels(cut, "label"))
        # but for the edge, where the region's ends the filter and the slide goes on
        inside = np.s_[:, 4 : cut["region_height"] - 4, 4 : cut["region_width"] - 4]
        difference = np.abs(item["image"].numpy() - cut_pixels(cut, "image"))[inside]
        assert difference[:, :-4, :-4].max() <= 2


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_read_what_the_main_process_reads(prepared, start, workers):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    dataset = ConcatDataset([Dataset(load(prepared), reading(backend)) for backend in BACKENDS])
    # so the main process has the slides open when it forks
    alone = [dataset[index]["image"].as_tensor() for index in range(len(dataset))]
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, multiprocessing_context=start)
    shared = [image for batch in loader for image in batch["image"].as_tensor()]
    assert len(shared) == len(alone) > 0
    assert all(map(torch.equal, shared, alone))


def slides_opened_by_reading(item):
    before = _kept_open.cache_info().misses
    LoadSlideTiled("image")(item)
    return _kept_open.cache_info().misses - before


def test_forked_process_opens_slides_anew(prepared):
    item = load(prepared)[0]
    LoadSlideTiled("image")(item)
    assert slides_opened_by_reading(item) == 0
    # one thread, as in a loader's worker: OpenMP's threads do not live on after a fork
    with multiprocessing.get_context("fork").Pool(1, torch.set_num_threads, (1,)) as pool:
        assert pool.apply_async(slides_opened_by_reading, (item,)).get(timeout=60) == 1


def copied(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "copy")
    folder = tmp_path / "copy"
    return SimpleNamespace(output=folder / "tiles", slides=folder / "slides", masks=folder / "masks")


def test_missing_slide_is_named_with_its_region(prepared, tmp_path):
    place = copied(prepared, tmp_path)
    (place.slides / SLIDES["TCGA-A1-AAAA-DX1"]).unlink()
    with refused(str(place.slides), "TCGA-A1-AAAA-DX1*", "found none"):
        load(place)


def test_two_slides_of_a_region_are_named(prepared, tmp_path):
    place = copied(prepared, tmp_path)
    shutil.copy(place.slides / SLIDES["TCGA-A1-AAAA-DX1"], place.slides / "TCGA-A1-AAAA-DX1.tif")
    with refused("TCGA-A1-AAAA-DX1*", "01Z-00-DX1.0E12A1.tif", "TCGA-A1-AAAA-DX1.tif"):
        load(place)


@pytest.mark.parametrize(
    "name", ["TCGA-A1-AAAA-01Z-00-DX10.tif", "TCGA-A1-AAAA-01Z-00-DX2.tif", "TCGA-A1-AAAB-01Z-00-DX1.tif",
             "xTCGA-A1-AAAA-01Z-00-DX1.tif", "TCGA-A1-AAAA-01Z-00-DX1.svs.xml"]
)  # fmt: skip
def test_slides_of_other_names_are_not_taken(prepared, tmp_path, name):
    place = copied(prepared, tmp_path)
    shutil.copy(place.slides / SLIDES["TCGA-A1-AAAA-DX1"], place.slides / name)
    assert len(load(place)) == len(load(prepared))


@pytest.mark.parametrize("folder", ["slides", "masks"])
def test_missing_folder_is_named_with_its_option(prepared, tmp_path, folder):
    place = SimpleNamespace(**{**vars(prepared), folder: tmp_path / "nowhere"})
    with refused("nowhere", f"--{folder}_dir"):
        load(place)


def test_other_mask_than_the_datasets_is_refused(prepared, tmp_path):
    place = copied(prepared, tmp_path)
    path = place.masks / f"{next(iter(REGIONS))}.png"
    Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    with refused(str(path), "not the mask"):
        load(place)


@pytest.mark.parametrize(("size", "inside"), [((463, 238), True), ((462, 260), False), ((520, 237), False)])
def test_region_outside_its_slide_is_refused(prepared, tmp_path, size, inside):
    place = copied(prepared, tmp_path)
    path = write_slide(place.slides / SLIDES["TCGA-A1-AAAA-DX1"], picture(*size, 0))
    if inside:
        load(place)
    else:
        with refused(str(path), f"{size[0]} x {size[1]}", "463, 238", "--slide_mpp"):
            load(place)


def test_slide_without_scale_needs_one(prepared, tmp_path):
    place = copied(prepared, tmp_path)
    path = write_slide(place.slides / SLIDES["TCGA-A1-AAAA-DX1"], picture(520, 260, 0), None)
    with refused(str(path), "--slide_mpp"):
        load(place)
    for mpp in (TRUE_MPP, 0.29):
        assert load(place, slide_mpp=mpp)[0]["image"].box0[2] == pytest.approx(TILE * TRUE_MPP / mpp, rel=0.01)
    with refused(str(path), "0.001", "--slide_mpp"):
        load(place, slide_mpp=0.001)


def test_slides_own_scale_goes_before_the_given(prepared):
    assert load(prepared, slide_mpp=0.5) == load(prepared)


def test_real_slide_without_scale_needs_one(data, tmp_path):
    path = data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    stem = "TCGA-CR-7395-TS1_xmin900_ymin700_MPP-0.2500"
    folder = tmp_path / "in"
    for kind, pixels in (("rgbs", picture(150, 140, 0)), ("masks", codes(150, 140, 0))):
        (folder / kind).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / kind / f"{stem}.png")
    place = SimpleNamespace(output=tmp_path / "out", slides=path.parent, masks=folder / "masks")
    prepare_bcss(folder, place.output, tile_size=TILE, val_fraction=0, test_fraction=0)
    with refused(str(path), "--slide_mpp"):
        load(place)
    images = [reading(backend)(load(place, slide_mpp=0.3)[-1])["image"] for backend in BACKENDS]
    # two JPEG 2000 decoders
    assert torch.abs(images[0] - images[1]).max() <= 2
    assert images[0].std() > 5


def write_png(path, levels, mpp):
    Image.fromarray(levels[0]).save(path.with_suffix(".png"))


def write_svs(path, levels, mpp):
    description = f"Aperio Image Library v1\r\n{levels[0].shape[1]}x{levels[0].shape[0]}|AppMag = 40|MPP = {mpp}"
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "adobe_deflate", "metadata": None}
    with tifffile.TiffWriter(path.with_suffix(".svs")) as file:
        for number, pixels in enumerate(levels):
            file.write(pixels, subfiletype=bool(number), description=description, **options)


def write_strips(path, levels, mpp):
    scale = {"resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path.with_suffix(".tif"), levels[0], photometric="rgb", **scale)


# by how a slide of them is written
FORMATS = {
    "png": write_png, "svs": write_svs, "strips": write_strips,
    "tif": lambda path, levels, mpp: write_slide(path.with_suffix(".tif"), levels[0], mpp),
    "dicom": lambda path, levels, mpp: write_dicom(path, levels, mpp),
    "dicom file": lambda path, levels, mpp: (write_dicom(path.with_name("1.2.3"), levels[:1], mpp) / "0.dcm").rename(
        path.with_suffix(".dcm")
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mpp", [0.30, 0.24, 0.15])
def test_tile_of_every_format_is_what_inference_sees_there(tmp_path, kind, mpp):
    """At the scale of level 0, between levels, and at that of level 1; all of it lossless."""
    step = TRUE_MPP / mpp
    # so that the region's corner lies on inference's grid
    x0, y0 = round(40 * step), round(20 * step)
    pixels = picture(640, 512, 11)
    levels = [pixels, np.asarray(Image.fromarray(pixels).reduce(2))]
    (tmp_path / "slides").mkdir()
    FORMATS[kind](tmp_path / "slides" / "TCGA-A1-AAAA-01Z-00-DX1", levels, mpp)
    folder = write_source(tmp_path / "in", {}, {})
    Image.fromarray(codes(200, 160, 2)).save(folder / "masks" / f"TCGA-A1-AAAA-DX1_xmin{x0}_ymin{y0}_MPP-0.2500.png")
    options = {"tile_size": TILE, "tile_files": "none", "val_fraction": 0, "test_fraction": 0}
    prepare_bcss(folder, tmp_path / "out", **options)

    items = load_slide_tiles(tmp_path / "out", "train", tmp_path / "slides", folder / "masks", slide_mpp=mpp)
    assert len(items) == 4
    with open_slide(Path(items[0]["image"].slide), mpp=mpp) as reader:
        view = ModelView(reader, TRUE_MPP)
        for item in map(reading(), items):
            (seen,) = view.read_batch([(40 + item["x"], 20 + item["y"])], TILE)
            assert np.array_equal(item["image"].numpy(), seen.transpose(2, 0, 1))
            assert seen.std() > 20


def test_picture_is_taken_where_there_is_no_other_slide(prepared, tmp_path):
    """Beside slides lie pictures of their regions and thumbnails."""
    place = copied(prepared, tmp_path)
    slide = place.slides / SLIDES["TCGA-A1-AAAA-DX1"]
    pixels = Image.open(slide)
    for name in ("TCGA-A1-AAAA-DX1.png", "TCGA-A1-AAAA-DX1_xmin10_ymin20_MPP-0.2500.png", "TCGA-A1-AAAA-DX1_thumb.jpg"):
        pixels.save(place.slides / name)
    assert load(place)[0]["image"].slide == str(slide)
    slide.unlink()
    item = load(place, slide_mpp=TRUE_MPP)[0]
    assert item["image"].slide == str(place.slides / "TCGA-A1-AAAA-DX1.png")
    cut = load_tiles(prepared.output, "train")[0]
    assert np.array_equal(reading()(item)["image"].numpy(), cut_pixels(cut, "image"))


def test_regions_without_a_place_are_refused(prepared, tmp_path):
    manifest = read_manifest(prepared.output)
    for source in manifest["sources"]:
        source |= {"x0": None, "y0": None}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with refused("TCGA-A1-AAAA-DX1_xmin10", "does not say where", "tile files"):
        load_slide_tiles(tmp_path, "train", prepared.slides, prepared.masks)


def test_split_without_tiles_is_refused_with_those_there_are(prepared):
    with refused(str(prepared.output), "'tset'", "test, train, val"):
        load(prepared, "tset")


@pytest.mark.parametrize(
    ("backend", "words"), [("cucim", "export it again"), ("openslide", "OpenSlide does not open it")]
)
def test_slide_cut_short_after_the_check_is_named(prepared, tmp_path, backend, words):
    place = copied(prepared, tmp_path)
    items = load(place, backend=backend)
    path = place.slides / SLIDES["TCGA-A1-AAAA-DX1"]
    path.write_bytes(path.read_bytes()[:200])
    with refused(str(path), words):
        LoadSlideTiled("image", backend)(items[0])


def test_unknown_backend_is_refused_with_the_known(prepared):
    with refused("backend='vips'", "auto, cucim, openslide, tifffile, dicom, image"):
        load(prepared, backend="vips")
