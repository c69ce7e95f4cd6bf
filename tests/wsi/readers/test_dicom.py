"""Which frames of which files are the slide, and where they lie."""

import re
import shutil

import imagecodecs
import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)

from lightmuseg.errors import InputError
from lightmuseg.wsi.readers import UnreadablePixels
from lightmuseg.wsi.readers.dicom_series import one_of_each, series_files, slides_among
from lightmuseg.wsi.readers.frame_order import ORDERS, Seams, contradicted, proven_order
from lightmuseg.wsi.readers.opening import open_slide

TILE = 64
SIZE = 350, 290
COLUMNS, ROWS = 6, 5
ORDER = {name: [order(r, c, ROWS, COLUMNS) for r in range(ROWS) for c in range(COLUMNS)]
         for name, order in ORDERS.items()}  # fmt: skip


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


@pytest.fixture
def slide(tmp_path, picture, write_dicom):
    """A slide of one file, and its pixels."""
    pixels = picture(*SIZE)
    return write_dicom(tmp_path / "slide", [pixels]) / "0.dcm", pixels


def change(path, frames=None, target=None, **entries):
    """Write a DICOM file with other entries, frames being the numbers of those before in their new order."""
    dataset = pydicom.dcmread(path)
    if frames is not None:
        stored = np.frombuffer(dataset.PixelData, np.uint8).reshape(dataset.NumberOfFrames, -1)
        dataset.PixelData = stored[frames].tobytes()
    for name, value in entries.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(target or path)
    return target or path


def places(numbers, step=TILE):
    """Entries that say where each frame lies, by its number in rows."""
    groups = []
    for number in numbers:
        place, group = pydicom.Dataset(), pydicom.Dataset()
        place.RowPositionInTotalImagePixelMatrix = number // COLUMNS * step + 1
        place.ColumnPositionInTotalImagePixelMatrix = number % COLUMNS * step + 1
        group.PlanePositionSlideSequence = [place]
        groups.append(group)
    return {"DimensionOrganizationType": "TILED_SPARSE", "PerFrameFunctionalGroupsSequence": groups}


def read(path):
    with open_slide(path) as opened:
        level = opened.levels[0]
        return opened.read(0, 0, 0, level.width, level.height)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("said", [{"DimensionOrganizationType": None}, places([]), {**places([]), "drop": True}])
def test_frames_without_places_are_put_where_their_borders_fit(slide, order, said):
    path, pixels = slide
    said = dict(said)
    if said.pop("drop", False):
        # groups that say something else of each frame
        said["PerFrameFunctionalGroupsSequence"] = [pydicom.Dataset() for _ in range(ROWS * COLUMNS)]
    change(path, np.argsort(ORDER[order]), **said)
    assert np.array_equal(read(path), pixels)


def test_frames_without_places_are_refused_where_their_borders_prove_nothing(slide):
    path, _ = slide
    shuffled = change(path, np.random.default_rng(0).permutation(ROWS * COLUMNS), DimensionOrganizationType=None)
    with refused(str(shuffled), "30 frames", "prove no order", "export it again"):
        read(shuffled)
    glass = np.random.default_rng(0).integers(240, 248, len(pydicom.dcmread(path).PixelData), np.uint8)
    with refused(str(path), "prove no order"):
        read(change(path, PixelData=glass.tobytes()))
    # what says where they lie is believed of glass
    assert read(change(path, DimensionOrganizationType="TILED_FULL")).min() == 240


def test_a_level_that_proves_nothing_has_the_order_of_a_finer_one(tmp_path, pyramid, write_dicom):
    levels = pyramid(*SIZE)
    folder = write_dicom(tmp_path / "slide", levels)
    for number, (rows, columns) in enumerate(((5, 6), (3, 3), (2, 2))):
        frames = [row * columns + column for column in range(columns) for row in range(rows)]
        change(folder / f"{number}.dcm", frames, DimensionOrganizationType=None)
    with open_slide(folder) as slide:
        for level, pixels in enumerate(levels):
            assert np.array_equal(slide.read(level, 0, 0, *pixels.shape[1::-1]), pixels)


def test_frames_in_one_column_need_no_proof(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "slide", [np.full((290, 60, 3), 245, np.uint8)]) / "0.dcm"
    assert (read(change(path, DimensionOrganizationType=None)) == 245).all()


def test_two_frames_that_lie_in_each_others_place_are_refused_and_one_alone_is_not(data):
    pixels = np.asarray(Image.open(min((data / "bcss" / "rgbs").iterdir())).convert("RGB"))
    places = {(row, column): (row, column) for row in range(7) for column in range(7)}

    def seams(places):
        return Seams(lambda *place: pixels[256 * places[place][0] :, 256 * places[place][1] :][:256, :256], 7, 7)

    assert not contradicted(seams(places))
    assert contradicted(seams({**places, (2, 2): (5, 4), (5, 4): (2, 2)}))
    assert not contradicted(seams({**places, (2, 2): (5, 4)}))


@pytest.mark.parametrize("frames", [[0, 2, 1, 3], [1, 0, 3, 2], [3, 1, 2, 0]])
def test_four_frames_are_enough_to_see_it(data, tmp_path, frames):
    path = tmp_path / "slide.dcm"
    dataset = pydicom.dcmread(data / "slide_cases" / "dicom_two_slides" / "b_tissue.dcm")
    stored = list(generate_frames(dataset.PixelData, number_of_frames=4))
    dataset.PixelData = encapsulate([stored[number] for number in frames])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with refused(str(path), "do not fit together"):
        read(path)


@pytest.mark.parametrize("seed", range(3))
def test_frames_that_do_not_lie_where_the_file_says_are_refused(slide, seed):
    path, _ = slide
    other = np.random.default_rng(seed).permutation(ROWS * COLUMNS)
    for frames, entries in ((other, {}), (np.argsort(ORDER["columns"]), {}), (None, places(other))):
        with refused("wrong.dcm", "6 x 5 frames", "do not fit together", "export it again"):
            read(change(path, frames, path.with_name("wrong.dcm"), SOPInstanceUID=generate_uid(), **entries))
        path.with_name("wrong.dcm").unlink()


def test_frames_lie_where_the_file_says_in_any_order(slide):
    path, pixels = slide
    order = np.random.default_rng(0).permutation(ROWS * COLUMNS)
    assert np.array_equal(read(change(path, order, **places(order))), pixels)
    with openslide.OpenSlide(path) as opened:
        assert np.array_equal(np.asarray(opened.read_region((0, 0), 0, SIZE).convert("RGB")), pixels)


def test_frames_that_are_left_out_are_glass(slide):
    path, pixels = slide
    kept = np.setdiff1d(np.arange(ROWS * COLUMNS), [7, 29])
    expected = pixels.copy()
    expected[64:128, 64:128] = expected[256:, 320:] = 255
    assert np.array_equal(read(change(path, kept, NumberOfFrames=len(kept), **places(kept))), expected)


def test_frames_that_overlap_are_refused(slide):
    path, _ = slide
    numbers = list(range(ROWS * COLUMNS))
    with refused(str(path), "64 x 64 pixels overlap or lie off their grid"):
        read(change(path, **places(numbers, step=60)))
    with refused(str(path), "2 of its frames lie upon others"):
        read(change(path, **places([*numbers[:-2], 3, 4])))


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_real_tissue_is_told_from_shuffled_tissue_at_all_scales(data, name):
    """Frames of JPEG, 32 to 512 pixels, 0.25 or 0.5 to 8 um/px: none that lies right is refused."""
    with tifffile.TiffFile(data / "slides" / name) as file:
        whole = Image.fromarray(file.pages[0].asarray()[:2048, :2048])
    rng = np.random.default_rng(0)
    for factor in (1, 2, 4, 8):
        image = np.asarray(whole.reduce(factor))
        for tile in (32, 64, 128, 256, 512):
            rows, columns = image.shape[0] // tile, image.shape[1] // tile
            if not 4 <= rows * columns <= 300:
                continue
            cut = image[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile, 3).swapaxes(1, 2)
            cut = [imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(np.ascontiguousarray(frame), level=80))
                   for frame in cut.reshape(-1, tile, tile, 3)]  # fmt: skip

            def seams(numbers, cut=cut, shape=(rows, columns)):
                grid = np.reshape(numbers, shape)
                return Seams(lambda *place: cut[grid[place]], *shape)

            in_rows = list(range(rows * columns))
            in_columns = [row * columns + column for column in range(columns) for row in range(rows)]
            assert not contradicted(seams(in_rows))
            assert proven_order(seams(in_rows), rows, columns) in ("rows", None)
            assert proven_order(seams(in_columns), rows, columns) in ("columns", None)
            if rows * columns > 4:
                assert contradicted(seams(in_columns))
                assert contradicted(seams(rng.permutation(rows * columns)))
            if factor == 1:
                assert proven_order(seams(in_columns), rows, columns) == "columns"


def test_order_of_a_large_slide_is_seen_in_a_sample(picture):
    looked_at = []

    def frame(row, column):
        looked_at.append((row, column))
        return picture(64, 64, seed=row * 1000 + column)

    assert contradicted(Seams(frame, 1000, 1000))
    assert len(looked_at) == len(set(looked_at)) <= 3 * 64


@pytest.fixture
def two_slides(tmp_path, pyramid, write_dicom):
    """A folder with two slides of three levels each, a label, a segmentation and a list, without endings."""
    folder = tmp_path / "archive"
    folder.mkdir()
    slides = {}
    for number in (1, 2):
        slides[number] = pyramid(*SIZE, seed=number)
        series = write_dicom(tmp_path / f"series {number}", slides[number])
        for level in (0, 1, 2):
            shutil.move(series / f"{level}.dcm", folder / f"1.2.{number}.{9 - level}")
    one = folder / "1.2.1.9"
    kind = {"SOPInstanceUID": generate_uid(), "ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}
    change(one, target=folder / "1.2.1.4", **kind)
    change(one, target=folder / "1.2.1.5", SOPInstanceUID=generate_uid(), SOPClassUID=SegmentationStorage)
    change(one, target=folder / "DICOMDIR", SOPClassUID="1.2.840.10008.1.3.10")
    (folder / "notes.txt").write_text("not in DICOM")
    return folder, slides


def test_a_file_stands_for_all_levels_of_its_series(two_slides):
    folder, slides = two_slides
    for number, name in ((1, "1.2.1.9"), (1, "1.2.1.7"), (2, "1.2.2.8")):
        with open_slide(folder / name) as slide:
            assert [(level.width, level.height) for level in slide.levels] == [
                pixels.shape[1::-1] for pixels in slides[number]
            ]
            for level, pixels in enumerate(slides[number]):
                assert np.array_equal(slide.read(level, 0, 0, *pixels.shape[1::-1]), pixels)


def test_a_folder_of_two_slides_asks_for_a_file(two_slides):
    folder, _ = two_slides
    with refused(str(folder), "holds 2 slides, such as 1.2.1.9 and 1.2.2.9", "name a file"):
        open_slide(folder)
    for path in folder.glob("1.2.2.*"):
        path.unlink()
    with open_slide(folder) as slide:
        assert len(slide.levels) == 3


def test_what_is_no_picture_of_a_whole_slide_is_refused(two_slides):
    folder, _ = two_slides
    for name in ("1.2.1.4", "1.2.1.5", "DICOMDIR"):
        with refused(str(folder / name), "no picture of a whole slide"):
            open_slide(folder / name)
    for path in folder.glob("1.2.*.[7-9]"):
        path.unlink()
    with refused(str(folder), "no picture of a whole slide"):
        open_slide(folder)


def test_files_of_a_slide_that_are_all_named_are_the_slide_once(two_slides):
    folder, _ = two_slides
    named = [str(folder / name) for name in ("1.2.1.7", "1.2.1.9", "1.2.2.9", "1.2.2.8", "1.2.1.4", "nowhere")]
    assert one_of_each(named) == [named[0], named[2], named[4], named[5]]


def test_a_finest_level_that_cannot_be_read_is_no_coarser_slide(two_slides):
    folder, _ = two_slides
    change(folder / "1.2.1.9", PlanarConfiguration=1)
    with refused(str(folder / "1.2.1.8"), "finest level, 1.2.1.9, cannot be opened"):
        open_slide(folder / "1.2.1.8")
    (folder / "1.2.1.9").write_bytes((folder / "1.2.1.9").read_bytes()[:500])
    with refused("1.2.1.9", "not DICOM that can be read"):
        open_slide(folder)


def test_pictures_of_a_series_that_are_no_pyramid_are_refused(slide, write_dicom, picture):
    path, pixels = slide
    other = change(path, target=path.with_name("other.dcm"), SOPInstanceUID=generate_uid())
    with refused(str(path.parent), "2 pictures of 350 x 290"):
        open_slide(path.parent)
    assert np.array_equal(read(other), pixels)
    small = write_dicom(path.parent / "small", [picture(100, 200)], mpp=1.0) / "0.dcm"
    uids = {name: pydicom.dcmread(path)[name].value for name in ("SeriesInstanceUID", "FrameOfReferenceUID")}
    uids["StudyInstanceUID"] = pydicom.dcmread(path).StudyInstanceUID
    change(small, target=other, **uids)
    with refused(str(path), "350 x 290 and of 100 x 200", "not one slide"):
        open_slide(path)


def test_copies_are_no_levels(slide):
    path, pixels = slide
    shutil.copy(path, path.with_name("a copy.dcm"))
    assert slides_among(sorted(path.parent.iterdir())) == ([[path]], {})
    assert np.array_equal(read(path.parent), pixels)
    change(path, target=path.with_name("changed.dcm"), ImagedVolumeWidth=2.0)
    assert series_files(path) == [path]
    with refused(str(path.parent), "holds 2 slides"):
        open_slide(path.parent)


def lossless_jpeg(frame):
    return imagecodecs.jpeg8_encode(frame, level=95, lossless=True)


def jpeg2000(frame):
    return imagecodecs.jpeg2k_encode(frame, codecformat="j2k", level=0, reversible=True, mct=True)


def rle(frame):
    return pydicom.pixels.encoders.RLELosslessEncoder.encode(
        frame, rows=TILE, columns=TILE, samples_per_pixel=3, bits_allocated=8, bits_stored=8, pixel_representation=0,
        photometric_interpretation="RGB", number_of_frames=1, planar_configuration=0,
    )  # fmt: skip


ENCODERS = {
    JPEG2000Lossless: (jpeg2000, "YBR_RCT"),
    JPEGLosslessSV1: (lossless_jpeg, "RGB"),
    JPEGLSLossless: (imagecodecs.jpegls_encode, "RGB"),
    RLELossless: (rle, "RGB"),
}


def compressed(path, syntax, damage=lambda frame: frame, colours=None):
    """Write a slide's frames in a transfer syntax, frame 8 damaged."""
    dataset = pydicom.dcmread(path)
    encode, its = ENCODERS[syntax]
    stored = np.frombuffer(dataset.PixelData, np.uint8).reshape(-1, TILE, TILE, 3)
    frames = [encode(np.ascontiguousarray(frame)) for frame in stored]
    frames[8] = damage(frames[8])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PhotometricInterpretation = colours or its
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.keyword)
def test_lossless_frames_are_read_exactly(slide, syntax):
    path, pixels = slide
    # pydicom makes lengths even by a byte
    assert np.array_equal(read(compressed(path, syntax)), pixels)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 3] + bytes(400) + data[len(data) // 3 + 400 :],
    ],
)
@pytest.mark.parametrize("order", ["rows", "columns"])
@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.keyword)
def test_a_damaged_frame_is_named_and_the_others_read(slide, syntax, order, damage):
    path, pixels = slide
    # in an order that has to be proven, by frames that are looked at before
    change(path, np.argsort(ORDER[order]), **({} if order == "rows" else {"DimensionOrganizationType": None}))
    damaged = divmod(ORDER[order].index(8), COLUMNS)
    with open_slide(compressed(path, syntax, damage)) as opened:
        for row in range(ROWS):
            for column in range(COLUMNS):
                x, y = column * TILE, row * TILE
                box = pixels[y : y + TILE, x : x + TILE]
                if (row, column) == damaged:
                    with pytest.raises(UnreadablePixels, match=f"64 x 64 pixels at level-0 pixel {x}, {y} cannot"):
                        opened.read(0, x, y, *box.shape[1::-1])
                else:
                    assert np.array_equal(opened.read(0, x, y, *box.shape[1::-1]), box)


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.keyword)
def test_colours_that_no_decoder_turns_into_rgb_are_refused(slide, syntax):
    path, _ = slide
    with refused(str(path), "YBR_FULL", "RGB"):
        read(compressed(path, syntax, colours="YBR_FULL"))


def test_jpeg2000_that_says_ycbcr_and_is_not_is_refused(slide, monkeypatch):
    path, _ = slide
    monkeypatch.setitem(ENCODERS, JPEG2000Lossless, (
        lambda frame: imagecodecs.jpeg2k_encode(frame, codecformat="j2k", level=0, reversible=True, mct=False),
        "YBR_RCT",
    ))  # fmt: skip
    with refused(str(path), "says that it is YBR_RCT, its frames say RGB"):
        read(compressed(path, JPEG2000Lossless))


def test_a_transfer_syntax_that_is_not_read_is_named(slide):
    path, _ = slide
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    with refused(str(path), "RGB in Deflated Explicit VR Little Endian", "convert it"):
        open_slide(path)


def test_frames_of_another_transfer_syntax_are_refused(slide):
    path, _ = slide
    dataset = pydicom.dcmread(compressed(path, JPEGLSLossless))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path)
    with refused(str(path), "none of its frames", "does not begin as JPEG 2000 does"):
        open_slide(path)


def test_real_slides_in_dicom_lie_as_openslide_reads_them(data):
    for path in (data / "dicom").glob("*.dcm"):
        with open_slide(path, mpp=1) as slide, openslide.OpenSlide(path) as other:
            size = other.dimensions
            assert size == (slide.levels[0].width, slide.levels[0].height)
            found = slide.read(0, 0, 0, *size).astype(int)
            assert np.abs(found - np.asarray(other.read_region((0, 0), 0, size).convert("RGB"))).mean() < 1


def test_real_damage_is_in_its_frame_only(data):
    folder = data / "slide_cases" / "damaged"
    with open_slide(folder / "dicom-frame-cut.dcm", mpp=0.5) as slide:
        assert slide.read(0, 0, 0, 500, 500).std() > 10
        for y in (500, 700, 900):
            with pytest.raises(UnreadablePixels, match="500 x 500 pixels at level-0 pixel 0, 500"):
                slide.read(0, 100, y, 60, 60)
    with refused("dicom-transfer-syntax-jpeg2000.dcm"):
        open_slide(folder / "dicom-transfer-syntax-jpeg2000.dcm", mpp=0.5)
