import pytest

from lightmuseg.data import list_images
from lightmuseg.errors import InputError


def make(folder, *names):
    for name in names:
        (folder / name).touch()


def test_images_are_listed_by_name_and_other_files_are_not(tmp_path):
    make(tmp_path, "b.png", "a ü.JPG", "c.tiff", "notes.txt", "d.svs", "e")
    expected = [str(tmp_path / name) for name in ("a ü.JPG", "b.png", "c.tiff")]
    assert [item["image"] for item in list_images(tmp_path)] == expected
    assert list_images(str(tmp_path)) == list_images(tmp_path)
    assert all(set(item) == {"image"} for item in list_images(tmp_path))


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path / 'nowhere'}: no such folder.*--dataset_dir"):
        list_images(tmp_path / "nowhere")


def test_file_instead_of_a_folder_is_refused(tmp_path):
    make(tmp_path, "a.png")
    with pytest.raises(InputError, match=r"a\.png"):
        list_images(tmp_path / "a.png")


def test_folder_without_images_is_refused(tmp_path):
    make(tmp_path, "notes.txt")
    with pytest.raises(InputError, match=f"{tmp_path}: holds no images"):
        list_images(tmp_path)


def test_two_images_with_one_result_name_are_refused(tmp_path):
    make(tmp_path, "a.jpg", "a.png", "b.png")
    with pytest.raises(InputError, match=r"a\.png: .*a\.jpg"):
        list_images(tmp_path)
