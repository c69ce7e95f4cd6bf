"""The table of formats: what a run writes, and what it needs for that."""

import inspect
from types import SimpleNamespace

import pytest

import lightmuseg.outputs
from lightmuseg.errors import InputError
from lightmuseg.outputs import FORMATS, wanted_formats

ALWAYS = {"regions.geojson", "overlay.png", "uncertainty.png", "measurements.csv", "report.html"}


def options(**chosen):
    return SimpleNamespace(**{"ome": False, "probabilities": False, "dicom_seg": False, **chosen})


@pytest.mark.parametrize(
    ("chosen", "more"),
    [
        ((), {"classes.tif"}),
        (("ome",), {"classes.ome.tif"}),
        (("probabilities", "dicom_seg"), {"classes.tif", "probabilities.zarr", "classes.dcm"}),
    ],
)
def test_options_say_which_formats_are_written(chosen, more):
    assert wanted_formats(options(**dict.fromkeys(chosen, True))).keys() == ALWAYS | more


def test_a_package_that_is_not_installed_is_named_before_the_work(monkeypatch):
    monkeypatch.setattr(lightmuseg.outputs, "find_spec", lambda package: None)
    wanted_formats(options())
    with pytest.raises(InputError, match=r"--dicom_seg: highdicom is not installed; pip install"):
        wanted_formats(options(dicom_seg=True))


def test_every_format_has_the_same_shape():
    assert {str(inspect.signature(form.write)) for form in FORMATS.values()} == {
        "(path: 'Path', slide: 'SegmentedSlide') -> 'None'"
    }
