"""um per pixel are found however a file writes them."""

import logging

import numpy as np
import openslide
import pytest
import tifffile

from lightmuseg.errors import InputError
from lightmuseg.wsi.readers import open_slide

SIZE = 'SizeX="150" SizeY="130" SizeC="3" SizeZ="1" SizeT="1" Type="uint8" DimensionOrder="XYCZT"'
NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome(pixels, start='<?xml version="1.0"?>'):
    return f'{start}<OME xmlns="{NAMESPACE}"><Image ID="Image:0"><Pixels ID="Pixels:0" {SIZE} {pixels}/></Image></OME>'


def tiff(path, description, **options):
    content = description if isinstance(description, bytes) else description.encode()
    pixels = np.full((130, 150, 3), 200, np.uint8)
    options = {"tile": (64, 64), "photometric": "rgb", "metadata": None, **options}
    tifffile.imwrite(path, pixels, description=content, **options)
    return path


def mpp_of(path):
    with open_slide(path) as slide:
        return slide.mpp


@pytest.mark.parametrize(
    ("text", "mpp"),
    [
        (ome('PhysicalSizeX="0.25" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="0.25" PhysicalSizeYUnit="&#xB5;m"'),
         0.25),
        (ome("PhysicalSizeX='0.25' PhysicalSizeY = '0.25'"), 0.25),
        (ome('PhysicalSizeX="0.25"'), 0.25),
        (ome('PhysicalSizeX="2.5e2" PhysicalSizeXUnit="nm" PhysicalSizeY="2.5e2" PhysicalSizeYUnit="nm"'), 0.25),
        (ome('PhysicalSizeX="0.000025" PhysicalSizeXUnit="cm" PhysicalSizeY="0.25"'), 0.25),
        (ome('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', '<?xml version="1.0" encoding="UTF-16"?>'), 0.25),
        (ome('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', '<?xml version="1.0" encoding="UTF-16"?>').encode("utf-16"),
         0.25),
        (ome('PhysicalSizeX="0.25"', "\ufeff<?xml version='1.0'?>\n<!-- PhysicalSizeX=\"9\" -->"), 0.25),
        (f'<ome:OME xmlns:ome="{NAMESPACE}"><ome:Image ID="Image:0"><ome:Pixels {SIZE} PhysicalSizeX="0.25" '
         'PhysicalSizeY="0.25"/></ome:Image></ome:OME>', 0.25),
        ("ImageJ=1.53t\nunit=micron\n", 0.25), ("ImageJ=1.53t\nunit=um\n", 0.25),
        ("ImageJ=1.53t\nimages=1\nunit=\\u00B5m\nloop=false\n", 0.25), ("ImageJ=1.53t\nunit=\u00b5m\n", 0.25),
    ],
)  # fmt: skip
def test_ome_and_imagej(tmp_path, text, mpp):
    options = {"resolution": (4, 4), "resolutionunit": "NONE"}
    assert mpp_of(tiff(tmp_path / "slide.tif", text, **options)) == pytest.approx(mpp)


@pytest.mark.parametrize(("unit", "per_unit"), [("mm", 4000), ("cm", 40_000), ("inch", 101_600), ("nm", 0.004)])
def test_other_units_of_imagej(tmp_path, unit, per_unit):
    path = tiff(tmp_path / "slide.tif", f"ImageJ=1.53t\nunit={unit}\n", resolution=(per_unit, per_unit))
    assert mpp_of(path) == pytest.approx(0.25)


@pytest.mark.parametrize("unit", ["pixel", "inches of rain", ""])
def test_useless_unit_of_imagej_is_refused(tmp_path, unit):
    path = tiff(tmp_path / "slide.tif", f"ImageJ=1.53t\nunit={unit}\n", resolution=(4, 4), resolutionunit="NONE")
    with pytest.raises(InputError, match="--mpp"):
        mpp_of(path)


@pytest.mark.parametrize("entry", ["0,2500", "0.2500", ",25", "0.25"])
def test_aperios_decimal_comma(tmp_path, entry):
    text = f"Aperio Image Library v12.0.15 \r\n150x130 (64x64) JPEG/RGB Q=70|AppMag = 40|MPP = {entry}"
    path = tiff(tmp_path / "slide.svs", text, compression="jpeg")
    assert mpp_of(path) == pytest.approx(0.25)
    if entry == "0,2500":
        assert float(openslide.OpenSlide(path).properties["openslide.mpp-x"]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE o [<!ENTITY a "x"><!ENTITY b "&a;&a;">]>' + ome('PhysicalSizeX="0.25"', ""),
        '<!DOCTYPE o SYSTEM "file:///etc/passwd">' + ome('PhysicalSizeX="0.25"', ""),
        ome('PhysicalSizeX="&unknown;"'), ome('PhysicalSizeX="0.25')[:-20] + "</OME>",
    ],
)  # fmt: skip
def test_ome_xml_that_is_no_xml_or_declares_entities_is_left_out_with_a_warning(tmp_path, text, caplog):
    path = tiff(tmp_path / "slide.tif", text, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    with caplog.at_level(logging.WARNING):
        assert mpp_of(path) == pytest.approx(0.5)
    assert "OME-XML is left out" in caplog.text
