"""Which picture of a TIFF is read, and which pages are its levels."""

import contextlib
import logging

import numpy as np
import pytest
import tifffile
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.wsi.readers import open_slide

SIZE = (640, 480)
TILED = {"tile": (64, 64), "photometric": "rgb"}
BACKENDS = ("auto", "cucim", "openslide", "tifffile")


def save(path, *pages, ome=False, **writer):
    """Write pages, each pixels or (pixels, options), one after the other."""
    with tifffile.TiffWriter(path, ome=ome, **writer) as file:
        for page in pages:
            pixels, options = page if isinstance(page, tuple) else (page, {})
            file.write(pixels, **{**TILED, "metadata": None, "compression": "adobe_deflate", **options})
    return path


def levels_of(path, backend="auto", **options):
    """All levels as the reader gives them."""
    with open_slide(path, backend, mpp=0.25, **options) as slide:
        return [slide.read(number, 0, 0, level.width, level.height) for number, level in enumerate(slide.levels)]


def same(read, expected):
    assert [pixels.shape for pixels in read] == [pixels.shape for pixels in expected]
    assert all(map(np.array_equal, read, expected))


def opens(path, expected, **options):
    """Whatever opens the file gives these levels; what could take another page for one does not open it."""
    for backend in BACKENDS:
        with contextlib.suppress(InputError) if backend in ("cucim", "openslide") else contextlib.nullcontext():
            same(levels_of(path, backend, **options), expected)


STRIPS = {"tile": None, "rowsperstrip": 16}


@pytest.fixture
def slide(pyramid):
    """Three levels."""
    return pyramid(*SIZE)


@pytest.fixture
def other(picture):
    """A function: another picture of the slide's shape, so many times smaller."""
    return lambda times, seed=5: picture(SIZE[0] // times, SIZE[1] // times, seed)


def glass(times):
    return np.full((SIZE[1] // times, SIZE[0] // times, 3), 240, np.uint8)


@pytest.mark.parametrize("options", [{}, {"subfiletype": 1}])
@pytest.mark.parametrize("compression", ["adobe_deflate", "jpeg", None])
def test_page_of_the_same_shape_that_shows_something_else_is_no_level(tmp_path, slide, other, options, compression):
    options = {**options, "compression": compression}
    for number, page in enumerate((glass(4), other(4), slide[2][::-1].copy())):
        path = save(tmp_path / f"{number}.tif", slide[0], slide[1], (page, options))
        opens(path, slide[:2])
        path = save(tmp_path / f"only{number}.tif", slide[0], (page, options))
        opens(path, slide[:1])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_levels_are_found_in_any_order(tmp_path, slide, order):
    opens(save(tmp_path / "slide.tif", *(slide[number] for number in order)), slide)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_label_thumbnail_and_macro_first(tmp_path, slide, picture, byteorder, bigtiff):
    extra = [
        (picture(200, 150, 7), STRIPS),
        (picture(300, 130, 8), {"description": "Aperio Image Library v12\nmacro 300x130"}),
        (picture(700, 600, 9), {"description": "label"}),
        (slide[2].copy(), {**STRIPS, "subfiletype": 1}),
    ]
    path = save(tmp_path / "slide.tif", *extra, slide[0], slide[1], slide[2], byteorder=byteorder, bigtiff=bigtiff)
    opens(path, slide)


def test_tiled_macro_of_the_slides_shape_between_levels(tmp_path, slide, other):
    path = save(tmp_path / "slide.tif", slide[0], (other(2), {"subfiletype": 1}), slide[1], (other(3), {}), slide[2])
    opens(path, slide)
    with open_slide(path, mpp=0.25) as opened:
        assert opened.backend == "tifffile"


@pytest.mark.parametrize("how", ["nearest", "lanczos"])
@pytest.mark.parametrize("quality", [30, 90])
def test_real_level_passes_whatever_its_quality_and_resampling(data, tmp_path, how, quality):
    source = np.asarray(Image.open(next((data / "bcss" / "rgbs").iterdir())).convert("RGB"))[:1600, :2000]
    pages = [(source, {"tile": (256, 256), "compression": "jpeg"})]
    for times in (4, 16):
        size = source.shape[1] // times, source.shape[0] // times
        coarse = np.asarray(Image.fromarray(source).resize(size, getattr(Image.Resampling, how.upper())))
        pages.append((coarse, {"tile": (256, 256), "compression": "jpeg", "compressionargs": {"level": quality}}))
    with open_slide(save(tmp_path / "slide.tif", *pages), mpp=0.25) as slide:
        assert [level.width for level in slide.levels] == [2000, 500, 125]


def test_levels_of_glass_alone_are_its_levels(tmp_path):
    same(levels_of(save(tmp_path / "slide.tif", glass(1), glass(2))), [glass(1), glass(2)])


def test_level_that_cannot_be_compared_is_left_out(tmp_path, slide, tile_bytes):
    path = save(tmp_path / "slide.tif", slide[0], slide[1], slide[2])
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for offset, count in zip(file.pages[1].dataoffsets, file.pages[1].databytecounts):
            content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    opens(path, [slide[0], slide[2]])


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'
IMAGE = (
    '<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" Type="uint8" '
    'SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="{z}" SizeT="1" {more}><Channel ID="Channel:{number}:0" '
    'SamplesPerPixel="3"/>{places}</Pixels></Image>'
)


def ome(*images):
    """OME-XML of images (name, (width, height), number of the page, more attributes)."""
    return OME.format(
        "".join(
            IMAGE.format(
                number=number, name=name, width=size[0], height=size[1], more=more, z=1,
                places=f'<TiffData IFD="{page}" PlaneCount="1"/>',
            )
            for number, (name, size, page, more) in enumerate(images)
        )
    )  # fmt: skip


def test_scenes_of_an_ome_tiff_are_pictures_of_their_own(tmp_path, slide, picture):
    small = [picture(320, 240, 3), picture(320, 240, 3)[::2, ::2].copy()]
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, levels, mpp in (("small", small, 0.5), ("large", slide, 0.25)):
            about = {"axes": "YXS", "Name": name, "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            file.write(levels[0], subifds=len(levels) - 1, metadata=about, **TILED)
            for level in levels[1:]:
                file.write(level, subfiletype=1, **TILED)
    opens(path, slide)
    opens(path, slide, series=1)
    opens(path, small, series=0)
    with open_slide(path) as large, open_slide(path, series=0) as first:
        assert (large.mpp, first.mpp) == (0.25, 0.5)
        assert (large.picture["series"], large.picture["name"], large.picture["of"]) == (1, "large", 2)
        assert large.picture["could_be_meant"] == [0]
        assert large.picture["others"] == [{"series": 0, "name": "small", "kind": "slide", "size": [320, 240]}]
    with pytest.raises(InputError, match=r"no picture 2.*0 small \(slide, 320 x 240\); 1 large \(slide, 640 x 480\)"):
        open_slide(path, series=2)


def test_images_of_ome_xml_in_another_order_than_their_pages(tmp_path, slide, other):
    text = ome(
        ("slide", SIZE, 2, 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"'),
        ("label image", (160, 120), 1, ""),
        ("second", (320, 240), 0, 'PhysicalSizeX="0.5" PhysicalSizeY="0.5"'),
    )
    path = save(tmp_path / "slide.ome.tif", (other(2), {"description": text}), other(4), slide[0])
    opens(path, slide[:1])
    with open_slide(path) as opened:
        assert opened.mpp == 0.25
        said = [(one["series"], one["name"], one["kind"]) for one in opened.picture["others"]]
        assert said == [(0, "second", "slide"), (1, "label image", "label")]


def test_ome_xml_that_contradicts_its_file_is_left_out_with_a_warning(tmp_path, slide, caplog):
    text = ome(("slide", (1280, 960), 0, 'PhysicalSizeX="0.125" PhysicalSizeY="0.125"'))
    path = save(tmp_path / "slide.ome.tif", (slide[0], {"description": text}))
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="--mpp"):
        open_slide(path)
    assert "1280 x 960" in caplog.text
    opens(path, slide[:1])


def test_layers_of_focus_are_pictures_of_their_own(tmp_path, slide, other):
    text = OME.format(IMAGE.format(number=0, name="stack", width=640, height=480, z=2, more="", places="<TiffData/>"))
    path = save(tmp_path / "slide.ome.tif", (slide[0], {"description": text}), other(1))
    opens(path, slide[:1])
    opens(path, [other(1)], series=1)


def test_subifds_of_a_later_page_and_of_a_page_smaller_than_they_are(tmp_path, slide, picture):
    with tifffile.TiffWriter(tmp_path / "later.tif") as file:
        file.write(picture(100, 80, 2), photometric="rgb", rowsperstrip=16)
        file.write(slide[0], subifds=2, **TILED)
        file.write(slide[1], **TILED)
        file.write(slide[2], **TILED)
    opens(tmp_path / "later.tif", slide)
    with tifffile.TiffWriter(tmp_path / "inside.tif") as file:
        file.write(slide[2], subifds=1, **TILED)
        file.write(slide[0], **TILED)
    opens(tmp_path / "inside.tif", [slide[0], slide[2]])


def test_reduced_page_of_another_shape_is_no_level(tmp_path, slide, picture):
    opens(save(tmp_path / "slide.tif", slide[0], (picture(320, 200, 4), {"subfiletype": 1}), slide[1]), slide[:2])


def test_thumbnail_of_a_picture_that_is_no_8_bit_rgb_is_not_taken_for_it(tmp_path, slide):
    path = save(tmp_path / "slide.tif", slide[0].astype(np.uint16) * 16, slide[2])
    with pytest.raises(InputError, match="16-bit RGB"):
        levels_of(path)
    opens(path, [slide[2]], series=0)


def test_planes_and_opaque_alpha_are_read(tmp_path, slide, other):
    planes = [np.ascontiguousarray(level.transpose(2, 0, 1)) for level in slide]
    alpha = [np.dstack([level, np.full(level.shape[:2], 255, np.uint8)]) for level in slide]
    for compression in ("adobe_deflate", None, "lzw"):
        options = {"compression": compression}
        separate = {**options, "planarconfig": "separate"}
        path = save(tmp_path / "planes.tif", *((level, separate) for level in planes))
        opens(path, slide)
        opens(save(tmp_path / "strips.tif", (planes[0], {**separate, **STRIPS})), slide[:1])
        extra = {**options, "extrasamples": ["unassalpha"]}
        opens(save(tmp_path / "alpha.tif", *((level, extra) for level in alpha)), slide)
        opens(save(tmp_path / "alphastrips.tif", (alpha[0], {**extra, **STRIPS})), slide[:1])


def test_planes_and_channels_in_jpeg_are_read(tmp_path, slide):
    planes = np.ascontiguousarray(slide[0].transpose(2, 0, 1))
    path = save(tmp_path / "planes.tif", (planes, {"planarconfig": "separate", "compression": "jpeg"}))
    same(levels_of(path), [tifffile.imread(path).transpose(1, 2, 0)])
    about = {"axes": "CYX"}
    path = save(tmp_path / "channels.ome.tif", (planes, {"photometric": "minisblack", "compression": "jpeg",
                                                         "metadata": about}), ome=True)  # fmt: skip
    same(levels_of(path), [tifffile.imread(path).transpose(1, 2, 0)])


def test_slide_with_a_transparent_corner_is_refused_when_it_is_opened(tmp_path, slide):
    alpha = [np.dstack([level, np.full(level.shape[:2], 255, np.uint8)]) for level in slide]
    for level in alpha:
        level[-10:, -10:, 3] = 0
    path = save(tmp_path / "slide.tif", *((level, {"extrasamples": ["unassalpha"]}) for level in alpha))
    with pytest.raises(InputError, match="transparent"):
        open_slide(path, mpp=0.25)


def test_transparent_pixels_are_refused(tmp_path, slide):
    pixels = np.dstack([slide[0], np.full(slide[0].shape[:2], 255, np.uint8)])
    pixels[300, 400, 3] = 254
    path = save(tmp_path / "slide.tif", (pixels, {"extrasamples": ["unassalpha"]}))
    with open_slide(path, mpp=0.25) as opened, pytest.raises(InputError, match="transparent"):
        opened.read(0, 390, 290, 20, 20)


@pytest.mark.parametrize("tile", [(64, 64), None])
def test_damaged_tile_of_a_plane_is_named(tmp_path, slide, tile_bytes, tile):
    planes = np.ascontiguousarray(slide[0].transpose(2, 0, 1))
    options = {"planarconfig": "separate", "tile": tile, **({} if tile else {"rowsperstrip": 64})}
    path = save(tmp_path / "slide.tif", (planes, options))
    columns = 10 if tile else 1
    # the third plane's tile in the second row
    tag = "TileOffsets" if tile else "StripOffsets"
    offset, count, *_ = tile_bytes(path, tile=2 * 8 * columns + columns, tag=tag)
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    with open_slide(path, mpp=0.25) as opened:
        assert np.array_equal(opened.read(0, 0, 0, 640, 64), slide[0][:64])
        with pytest.raises(InputError, match="level 0"):
            opened.read(0, 0, 64, 10, 10)


@pytest.mark.parametrize("subifds", [0, 1])
def test_one_page_a_channel_is_read_as_rgb(tmp_path, slide, subifds):
    path = tmp_path / "slide.ome.tif"
    options = {"tile": (64, 64), "photometric": "minisblack", "compression": "adobe_deflate"}
    with tifffile.TiffWriter(path, ome=True) as file:
        about = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        file.write(np.ascontiguousarray(slide[0].transpose(2, 0, 1)), metadata=about, subifds=subifds, **options)
        for level in slide[1 : 1 + subifds]:
            file.write(np.ascontiguousarray(level.transpose(2, 0, 1)), subfiletype=1, **options)
    opens(path, slide[: 1 + subifds])
    with open_slide(path) as opened:
        assert opened.mpp == 0.25


def test_channels_that_are_no_colours_are_refused(tmp_path, slide):
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", ome=True) as file:
        about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "Cy3"]}}
        file.write(np.ascontiguousarray(slide[0].transpose(2, 0, 1)), photometric="minisblack", metadata=about)
    with pytest.raises(InputError, match="8-bit RGB"):
        levels_of(tmp_path / "slide.ome.tif")


def test_imagejs_three_channels_are_read_as_rgb(tmp_path, slide):
    tifffile.imwrite(
        tmp_path / "slide.tif", np.ascontiguousarray(slide[0].transpose(2, 0, 1)), imagej=True,
        metadata={"axes": "CYX", "mode": "composite", "unit": "um"}, resolution=(4, 4),
    )  # fmt: skip
    opens(tmp_path / "slide.tif", slide[:1])
    with open_slide(tmp_path / "slide.tif") as opened:
        assert opened.mpp == 0.25


def test_series_of_a_file_that_is_no_tiff_is_refused(tmp_path, slide):
    Image.fromarray(slide[0]).save(tmp_path / "slide.png")
    same(levels_of(tmp_path / "slide.png", series=0), slide[:1])
    with pytest.raises(InputError, match="--series 1"):
        levels_of(tmp_path / "slide.png", series=1)


@pytest.mark.parametrize(
    ("name", "mpp", "sizes"),
    [
        ("two_scenes.ome.tif", 0.25, [512, 256]), ("label_first.tif", 0.25, [512, 256]),
        ("comma_mpp.svs", 0.25, [512]), ("entity_unit.ome.tif", 0.25, [512]), ("imagej.tif", 0.25, [256]),
        ("planar.tif", 0.25, [256]), ("rgba_opaque.tif", 0.25, [256]),
    ],
)  # fmt: skip
def test_real_pixels(data, name, mpp, sizes):
    path = data / "slide_cases" / name
    if not path.exists():
        pytest.skip("not here")
    with open_slide(path) as opened, tifffile.TiffFile(path) as file:
        assert opened.mpp == pytest.approx(mpp)
        assert [level.width for level in opened.levels] == sizes
        expected = file.pages[name.startswith("label")].asarray()
        expected = expected.transpose(1, 2, 0) if name == "planar.tif" else expected[..., :3]
        assert np.abs(opened.read(0, 0, 0, sizes[0], sizes[0]).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_real_slides_keep_their_levels_and_name_their_other_pictures(data, name):
    with open_slide(data / "slides" / name, mpp=0.5) as opened:
        assert opened.backend == "cucim"
        assert opened.picture["could_be_meant"] == []
        kinds = [one["kind"] for one in opened.picture["others"]]
        assert kinds == (["slide", "label", "macro"] if name.startswith("CMU") else ["slide"])


def test_images_of_ome_xml_that_name_no_pages_follow_each_other(tmp_path, slide, other, caplog):
    about = 'PhysicalSizeX="0.25"'
    text = OME.format(
        "".join(
            IMAGE.format(number=number, name=name, width=width, height=height, z=1, more=more, places="")
            for number, (name, width, height, more) in enumerate((("a", 320, 240, ""), ("b", *SIZE, about)))
        )
    )
    path = save(tmp_path / "slide.ome.tif", (other(2), {"description": text}), slide[0])
    with open_slide(path) as opened:
        assert (opened.picture["name"], opened.mpp, opened.levels[0].width) == ("b", 0.25, 640)
    twice = text.replace('SamplesPerPixel="3"/>', 'SamplesPerPixel="3"/><TiffData IFD="0"/>')
    path = save(tmp_path / "twice.ome.tif", (other(2), {"description": twice}), slide[0])
    with caplog.at_level(logging.WARNING):
        opens(path, slide[:1])
    assert "'b' is left out: it names pages that are not there, or twice" in caplog.text


def test_tiles_that_overlap_are_not_put_side_by_side(tmp_path):
    xmp = (700, "B", 0, b"<EncodeInfo><iScan Magnification='40'/></EncodeInfo>", True)
    path = tmp_path / "slide.bif"
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", extratags=[xmp])
    with pytest.raises(InputError, match=r"slide.bif: is a Ventana slide, whose tiles overlap"):
        open_slide(path, "tifffile", 0.5)
