"""A segmented slide as files that other tools open, one format a module.

A new format is a module with ``write(path, slide)`` and a line in ``FORMATS``; docs/architecture.md says where to name
the option of one that is only made on request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError

from . import dicom_seg, measurements, overlay, probabilities, pyramid, regions, report, uncertainty
from .segmented import SegmentedSlide


@dataclass(frozen=True)
class Format:
    """How a file of a slide's results is made, and when.

    Attributes:
        write: makes it, or a folder, of that name.
        option: that asks for it; empty for one that is always made.
        unless: option that asks for another one instead.
        package: that it needs, of the extra "slides".
        require: raises an InputError for a slide (its file or folder, and its map to come) that it cannot be made of.
        beside: takes nothing that is only known of the whole map, and one band after the other: it is made while the
            map grows.
    """

    write: Callable[[Path, SegmentedSlide], None]
    option: str = ""
    unless: str = ""
    package: str = ""
    require: Callable[[Path, Any], Any] | None = None
    beside: bool = False


# by the names in a folder of results
FORMATS = {
    "classes.tif": Format(pyramid.write, unless="ome", beside=True),
    "classes.ome.tif": Format(pyramid.write_ome, option="ome", beside=True),
    "regions.geojson": Format(regions.write, beside=True),
    "overlay.png": Format(overlay.write),
    "uncertainty.png": Format(uncertainty.write),
    "measurements.csv": Format(measurements.write),
    "report.html": Format(report.write),
    "probabilities.zarr": Format(probabilities.write, option="probabilities", package="zarr", beside=True),
    "classes.dcm": Format(dicom_seg.write, option="dicom_seg", package="highdicom", require=dicom_seg.require),
}


def wanted_formats(options: Any) -> dict[str, Format]:
    """Those of the formats that the options of a run ask for.

    Raises:
        InputError: where a package that one needs is not installed.
    """
    wanted = {}
    for name, form in FORMATS.items():
        if (not form.option or getattr(options, form.option)) and not (form.unless and getattr(options, form.unless)):
            if form.package and find_spec(form.package) is None:
                raise InputError(f"--{form.option}: {form.package} is not installed; pip install 'lightmuseg[slides]'.")
            wanted[name] = form
    return wanted
