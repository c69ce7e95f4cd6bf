"""Names of results that are too long for a file system."""

import os

import pytest
from PIL import Image
from stand_in_networks import Dark

from lightmuseg.errors import InputError
from lightmuseg.slides import Options, segment_slides
from lightmuseg.slides.limits import AROUND, INSIDE, require_names_that_fit


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (90, 60, 90)).save(path)
    return str(path)


@pytest.mark.parametrize("resume", [False, True])
def test_a_slide_whose_name_is_too_long_fails_alone(tmp_path, resume):
    # in UTF-8 two bytes a letter: 251 as the file, more in the hidden folder
    long, good = picture(tmp_path / f"{'ä' * 123}x.png"), picture(tmp_path / "b.png")
    options = Options(
        output_dir=tmp_path / "out", class_names=("tumor",), slide_mpp=0.25, tissue_mask=False, resume=resume
    )
    with pytest.raises(InputError, match="1 of 2 slides failed"):
        segment_slides([long, good], Dark(), options, {})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b", "report.csv"]
    said = (tmp_path / "out" / "report.csv").read_text(encoding="utf-8")
    assert "has 247 bytes, and at most 246 fit here; give the slide a shorter name" in said


def test_the_longest_name_that_fits_is_made(tmp_path):
    folder = tmp_path / ("n" * (os.pathconf(tmp_path, "PC_NAME_MAX") - AROUND))
    require_names_that_fit(folder)
    folder.with_name(f".{folder.name}.partial").mkdir()
    with pytest.raises(InputError, match="shorter name"):
        require_names_that_fit(folder.with_name(f"{folder.name}n"))


def test_a_path_that_is_too_long_is_refused(tmp_path):
    most = os.pathconf(tmp_path, "PC_PATH_MAX") - AROUND - INSIDE
    deep = tmp_path
    while len(str(deep)) < most - 101:
        deep /= "d" * 100
    fits = deep / ("d" * (most - len(str(deep)) - 1))
    require_names_that_fit(fits)
    with pytest.raises(InputError, match="choose another --output"):
        require_names_that_fit(fits.with_name(f"{fits.name}d"))
