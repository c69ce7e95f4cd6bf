import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.transforms import SaveImage
from PIL import Image

from lightmuseg.data import LabelMapWriter, output_ending
from lightmuseg.errors import InputError

READERS = {
    ".png": lambda path: np.array(Image.open(path)),
    ".tif": tifffile.imread,
    # NIfTI counts (x, y)
    ".nii.gz": lambda path: np.asarray(nibabel.load(path).dataobj).T,
}


@pytest.fixture
def classes():
    return np.random.default_rng(0).integers(0, 256, (1, 30, 50), dtype=np.uint8)


def write(path, classes, channel_dim=0):
    writer = LabelMapWriter()
    writer.set_data_array(classes, channel_dim=channel_dim)
    writer.set_metadata({})
    writer.write(path)


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("make", [np.asarray, lambda array: torch.as_tensor(array).float()])
def test_map_is_read_back_by_another_library(tmp_path, classes, ending, make):
    path = tmp_path / "über" / f"a map{ending}"
    write(path, make(classes))
    read = READERS[ending](path)
    assert read.dtype == np.uint8
    assert np.array_equal(read, classes[0])
    assert list(path.parent.iterdir()) == [path]


def test_nifti_holds_x_then_y(tmp_path):
    classes = np.zeros((1, 30, 50), dtype=np.uint8)
    classes[0, 10, 40] = 3
    write(tmp_path / "map.nii.gz", classes)
    assert nibabel.load(tmp_path / "map.nii.gz").dataobj[40, 10] == 3


@pytest.mark.parametrize("ending", READERS)
def test_monai_saves_through_it(tmp_path, classes, ending):
    save = SaveImage(
        output_dir=tmp_path, output_ext=ending, output_postfix="classes", separate_folder=False, print_log=False,
        writer="lightmuseg.data.LabelMapWriter", output_dtype=np.uint8,
    )  # fmt: skip
    save(torch.as_tensor(classes), meta_data={"filename_or_obj": "slide.png"})
    assert np.array_equal(READERS[ending](tmp_path / f"slide_classes{ending}"), classes[0])


@pytest.mark.parametrize("name", ["map.jpg", "map.nii", "map", "png"])
def test_unknown_ending_is_refused(tmp_path, classes, name):
    with pytest.raises(ValueError, match=name):
        write(tmp_path / name, classes)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("ending", READERS)
def test_failing_write_leaves_what_was_there(tmp_path, classes, ending):
    path = tmp_path / f"map{ending}"
    path.mkdir()
    with pytest.raises(OSError, match="map"):
        write(path, classes)
    assert list(tmp_path.iterdir()) == [path]


def test_map_that_is_no_picture_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path / "map.png", np.zeros((7, 30, 50), dtype=np.uint8), channel_dim=None)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [256, -1])
def test_class_index_beyond_8_bits_is_never_written_as_another(tmp_path, value):
    with pytest.raises(ValueError, match=str(value)):
        write(tmp_path / "map.png", np.full((1, 4, 5), value))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "ending"), [("png", ".png"), ("tiff", ".tif"), ("nifti", ".nii.gz")])
def test_formats_have_endings(name, ending):
    assert output_ending(name) == ending


@pytest.mark.parametrize("name", ["jpg", ".png", "PNG", ""])
def test_unknown_format_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=f"output_format='{name}'.*png, tiff, nifti"):
        output_ending(name)
