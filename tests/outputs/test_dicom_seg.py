"""The DICOM segmentation is what highdicom itself would write, and lies over its slide."""

import sys

import numpy as np
import pytest
from segmented_slides import segmented

from lightmuseg.errors import InputError
from lightmuseg.outputs.dicom_seg import write

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

NAMES = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


class ClassMap:
    def __init__(self, classes, downsample=2.0, class_names=NAMES):
        self.classes, self.downsample, self.class_names = classes, downsample, class_names
        self.height, self.width = classes.shape
        self.mpp = 0.25 * downsample

    def bands(self, height):
        for row in range(0, self.height, height):
            yield self.classes[row : row + height].copy()


def write_dicom_seg(path, class_map, source):
    write(path, segmented(class_map, path=source))


def noise(height, width, classes=5):
    found = np.random.default_rng(0).integers(0, classes, (height, width)).astype(np.uint8)
    found[height // 2, width // 3 :] = 255
    return found


def write_tags(path, width, height, **changes):
    """The tags of a whole-slide image, of the standard's mandatory ones those that a segmentation asks for."""
    tags = pydicom.Dataset()
    tags.file_meta = pydicom.dataset.FileMetaDataset()
    tags.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    tags.SOPClassUID, tags.Modality = WHOLE_SLIDE, "SM"
    tags.SOPInstanceUID, tags.SeriesInstanceUID, tags.StudyInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    tags.FrameOfReferenceUID, tags.PositionReferenceIndicator = "1.2.3.4", "SLIDE_CORNER"
    tags.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    tags.PatientName, tags.PatientID, tags.StudyDate, tags.StudyTime = "A^B", "7", "20200102", "030405"
    tags.ContentDate, tags.ContentTime = "20200203", "040506"
    tags.Rows = tags.Columns = 256
    tags.NumberOfFrames = 20
    tags.TotalPixelMatrixColumns, tags.TotalPixelMatrixRows = width, height
    tags.ImageOrientationSlide = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]
    origin = pydicom.Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 21.5, 43.25
    tags.TotalPixelMatrixOriginSequence = [origin]
    measures, shared = pydicom.Dataset(), pydicom.Dataset()
    # rows lie farther apart than columns, so that the two cannot be mistaken
    measures.PixelSpacing, measures.SliceThickness = [0.0003, 0.00025], 0.001
    shared.PixelMeasuresSequence = [measures]
    tags.SharedFunctionalGroupsSequence = [shared]
    for name, value in changes.items():
        if value is None:
            delattr(tags, name)
        else:
            setattr(tags, name, value)
    tags.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def slide(tmp_path):
    return write_tags(tmp_path / "slide.dcm", 2401, 1299)


@pytest.fixture
def class_map():
    return ClassMap(noise(650, 1201))


def pixels_of(path, segments=4):
    """Booleans [height, width, segment] as highdicom reads them."""
    matrix = hd.seg.segread(path).get_total_pixel_matrix(combine_segments=False, segment_numbers=range(1, segments + 1))
    return matrix.astype(bool)


@pytest.mark.parametrize("shape", [(650, 1201), (512, 1024), (1, 1), (513, 7)])
def test_highdicom_reads_the_map_of_every_class(shape, tmp_path):
    classes = noise(*shape)
    source = write_tags(tmp_path / "slide.dcm", shape[1] * 2, shape[0] * 2)
    write_dicom_seg(tmp_path / "a", ClassMap(classes), source)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a"), classes[..., None] == [1, 2, 3, 4])


@pytest.mark.parametrize("downsample", [1.0, 1.002, 2.0])
def test_it_is_what_highdicom_itself_writes(downsample, tmp_path):
    classes = noise(600, 700)
    size0 = round(700 * downsample), round(600 * downsample)
    source = write_tags(tmp_path / "slide.dcm", *size0)
    write_dicom_seg(tmp_path / "a", ClassMap(classes, downsample), source)
    found = hd.seg.segread(tmp_path / "a")
    slide = pydicom.dcmread(source)
    for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName"):
        setattr(slide, name, None)
    origin = found.TotalPixelMatrixOriginSequence[0]
    expected = hd.seg.Segmentation(
        source_images=[slide],
        pixel_array=np.where(classes == 255, 0, classes)[None],
        segmentation_type="BINARY",
        segment_descriptions=[hd.seg.SegmentDescription.from_dataset(item) for item in found.SegmentSequence],
        series_instance_uid=found.SeriesInstanceUID,
        series_number=1,
        sop_instance_uid=found.SOPInstanceUID,
        instance_number=1,
        manufacturer="LightMuSeg",
        manufacturer_model_name="LightMuSeg",
        software_versions=found.SoftwareVersions,
        device_serial_number="1",
        content_label="CLASSES",
        content_date="20200203",
        content_time="040506",
        series_date="20200203",
        series_time="040506",
        pixel_measures=hd.PixelMeasuresSequence([0.0003 * downsample, 0.00025 * downsample], 0.001),
        plane_positions=[
            hd.PlanePositionSequence(
                "SLIDE",
                [origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem, 0.0],
                (1, 1),
            )
        ],
        tile_pixel_array=True,
        tile_size=(512, 512),
        dimension_organization_type="TILED_FULL",
        omit_empty_frames=False,
    )
    expected.save_as(tmp_path / "b")
    expected = pydicom.dcmread(tmp_path / "b")
    moments = {"InstanceCreationDate", "InstanceCreationTime"}
    assert {element.keyword for element in found} == {element.keyword for element in expected} - moments
    for element in expected:
        # the first is random, the second says when it was written
        if element.keyword not in {"DimensionOrganizationSequence", "ContributingEquipmentSequence"} | moments:
            assert found[element.tag].value == element.value, element.keyword


@pytest.mark.parametrize("downsample", [1.0, 2.0, 3.37])
def test_each_pixel_lies_where_the_slides_own_pixels_lie(downsample, tmp_path):
    classes = noise(40, 50)
    source = write_tags(tmp_path / "slide.dcm", round(50 * downsample), round(40 * downsample))
    write_dicom_seg(tmp_path / "a", ClassMap(classes, downsample), source)
    on_slide, on_map = (
        hd.spatial.ImageToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
        for image in (pydicom.dcmread(source), hd.seg.segread(tmp_path / "a"))
    )
    corners = np.array([[0, 0], [50, 0], [0, 40], [13, 29]], dtype=float)
    # mm, so a thousandth of a pixel
    np.testing.assert_allclose(on_map(corners), on_slide(corners * downsample), atol=2.5e-7)


def test_segments_say_what_they_are(slide, class_map, tmp_path):
    class_map.class_names = ("tumor", "stroma", "cartilage", "necrosis_or_debris")
    write_dicom_seg(tmp_path / "a", class_map, slide)
    found = hd.seg.segread(tmp_path / "a")
    assert found.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    assert [found.get_segment_description(n).segment_label for n in (1, 2, 3, 4)] == list(class_map.class_names)
    described = [found.get_segment_description(n) for n in (1, 2, 3, 4)]
    kinds = [(d.segmented_property_category.value, d.segmented_property_type.value) for d in described]
    assert kinds == [
        ("49755003", "108369006"),
        ("85756007", "21793004"),
        ("85756007", "85756007"),
        ("49755003", "6574001"),
    ]
    assert {d.algorithm_type for d in described} == {hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC}
    assert described[0].algorithm_identification[0].AlgorithmName == "LightMuSeg"


def test_it_refers_to_its_slide(slide, class_map, tmp_path):
    write_dicom_seg(tmp_path / "a", class_map, slide)
    found = hd.seg.segread(tmp_path / "a")
    assert (found.FrameOfReferenceUID, found.StudyInstanceUID, found.PatientID) == ("1.2.3.4", "1.2.3.3", "7")
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.2"
    assert found.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"


def test_bytes_repeat_and_another_map_has_other_uids(slide, class_map, tmp_path):
    for name in "ab":
        write_dicom_seg(tmp_path / name, class_map, slide)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    class_map.classes[5, 6] = (class_map.classes[5, 6] + 1) % 5
    write_dicom_seg(tmp_path / "b", class_map, slide)
    one, other = (pydicom.dcmread(tmp_path / name, stop_before_pixels=True) for name in "ab")
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID


def test_one_class_and_none_found(slide, tmp_path):
    write_dicom_seg(tmp_path / "a", ClassMap(np.zeros((650, 1201), np.uint8), class_names=("tumor",)), slide)
    assert not pixels_of(tmp_path / "a", 1).any()


def test_of_a_folder_the_finest_level_of_the_slide_is_meant(class_map, tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    write_tags(folder / "a.dcm", 601, 325, SOPInstanceUID="1.2.3.10")
    write_tags(folder / "b.dcm", 2401, 1299, SOPInstanceUID="1.2.3.11")
    label = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    write_tags(folder / "c.dcm", 9999, 9999, SOPInstanceUID="1.2.3.12", ImageType=label)
    write_tags(folder / "d.dcm", 9999, 9999, SOPInstanceUID="1.2.3.13", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    (folder / "notes.txt").write_text("not in DICOM")
    for length in (142, 612, 700):
        (folder / f"{length}.dcm").write_bytes((folder / "a.dcm").read_bytes()[:length])
    write_dicom_seg(tmp_path / "a", class_map, folder)
    found = hd.seg.segread(tmp_path / "a")
    assert found.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.3.11"


def test_what_dicom_lets_be_empty_may_lack(class_map, tmp_path):
    lacking = dict.fromkeys(("PatientName", "PatientID", "StudyDate", "StudyTime", "ContentDate", "ContentTime"))
    source = write_tags(tmp_path / "slide.dcm", 2401, 1299, ImageType=None, **lacking)
    write_dicom_seg(tmp_path / "a", class_map, source)
    assert pixels_of(tmp_path / "a").any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FrameOfReferenceUID": None}, "lacks FrameOfReferenceUID, by which"),
        ({"ImageOrientationSlide": None}, "lacks ImageOrientationSlide, by which"),
        ({"TotalPixelMatrixOriginSequence": None}, "lacks TotalPixelMatrixOriginSequence, by which"),
        ({"SharedFunctionalGroupsSequence": None}, "lacks PixelSpacing, by which"),
        ({"SeriesInstanceUID": "", "StudyInstanceUID": None}, "lacks StudyInstanceUID, SeriesInstanceUID, by which"),
        ({"ImageOrientationSlide": [1.0, 0.0, 0.0]}, r"tags cannot be referred to \(cannot reshape"),
        ({"Rows": None}, r"tags cannot be referred to \(.*Rows"),
        ({"TotalPixelMatrixColumns": 1200}, "1.2.3.1 of 1200 x 1299 pixels is not the level that was segmented"),
        ({"TotalPixelMatrixRows": 1304}, "1.2.3.1 of 2401 x 1304 pixels is not the level that was segmented"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "is no DICOM whole-slide image"),
    ],
)
def test_slides_that_cannot_be_referred_to_are_refused(changes, message, class_map, tmp_path):
    source = write_tags(tmp_path / "slide.dcm", **{"width": 2401, "height": 1299} | changes)
    with pytest.raises(InputError, match=f"slide.dcm: .*{message}"):
        write_dicom_seg(tmp_path / "a", class_map, source)
    assert not (tmp_path / "a").exists()


def test_other_files_are_refused_with_the_remedy(class_map, tmp_path):
    (tmp_path / "slide.svs").write_bytes(b"II*\x00" + bytes(500))
    with pytest.raises(InputError, match=r"slide.svs: is no DICOM .*leave out --dicom-seg, or convert"):
        write_dicom_seg(tmp_path / "a", class_map, tmp_path / "slide.svs")


def test_too_large_a_map_is_refused_with_the_remedy(tmp_path):
    class_map = ClassMap(np.broadcast_to(np.uint8(0), (100_000, 90_000)))
    source = write_tags(tmp_path / "slide.dcm", 180_000, 200_000)
    with pytest.raises(InputError, match=r"90000 x 100000 pixels of 4 classes .*coarser --output-mpp"):
        write_dicom_seg(tmp_path / "a", class_map, source)


def test_without_highdicom_the_extra_is_named(slide, class_map, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"pip install 'lightmuseg\[slides\]'"):
        write_dicom_seg(tmp_path / "a", class_map, slide)


def test_real_slides(data, tmp_path):
    classes = noise(25, 25)
    write_dicom_seg(tmp_path / "a", ClassMap(classes), data / "slides" / "highdicom_sm_image.dcm")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a"), classes[..., None] == [1, 2, 3, 4])
    with pytest.raises(InputError, match="lacks FrameOfReferenceUID, PixelSpacing, by which"):
        write_dicom_seg(tmp_path / "b", ClassMap(noise(1319, 1618)), data / "slides" / "pathml_small_dicom.dcm")
    (tmp_path / "cut.dcm").write_bytes((data / "slides" / "highdicom_sm_image.dcm").read_bytes()[:5820])
    with pytest.raises(InputError, match=r"cut.dcm: is no DICOM whole-slide image"):
        write_dicom_seg(tmp_path / "b", ClassMap(classes), tmp_path / "cut.dcm")
