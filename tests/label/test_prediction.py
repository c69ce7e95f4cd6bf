"""What cannot be read of a slide is no region of an answer."""

from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import tifffile

from lightmuseg.errors import InputError
from lightmuseg.label.prediction import predicted

TILE = 128


class Everywhere:
    """A network that says tumor of everything."""

    tile_size, output_stride, out_channels, parity = TILE, 2, 1, None
    choice = "stand-in"

    def __call__(self, tiles):
        return np.ones((len(tiles), 1, TILE // 2, TILE // 2), np.float32)


NETWORK = SimpleNamespace(mpp=0.25, overlap=0.25, class_names=("tumor",), batch_size=2, runtime=Everywhere())


@pytest.fixture
def slide(tmp_path):
    """Of 512 pixels square; of a second its tile at 128, 256 is damaged."""
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    options = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "adobe_deflate"}
    tifffile.imwrite(path, pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[9], file.pages[0].databytecounts[9]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes([7]) * length
    path.write_bytes(content)
    return path


def test_unread_tiles_are_counted_and_no_region_is_there(slide):
    lost = shapely.box(128, 256, 256, 384)
    for request in [{}, {"location": (0, 0), "size": (200, 300)}]:
        with predicted(slide, NETWORK, **request) as prediction:
            found = shapely.union_all([polygon for _, polygon in prediction.annotations()])
            box = prediction.box.polygon()
            assert found.symmetric_difference(box - lost).area < 0.01 * box.area
            image = prediction.image()
            assert set(np.unique(image)) == {0, 1}
            assert not image[256:384, 128:256].any()
            assert image.sum() == (box - lost).area
            # of the network, which begin at -32, 64, 160, 256 ...: two columns and three rows of them, two in the box
            assert prediction.unread_tiles == (4 if request else 6)


def test_request_of_which_nothing_can_be_read_is_refused(slide):
    request = {"location": (150, 270), "size": (60, 60)}
    with pytest.raises(InputError, match=r"slide.tif: nothing .* 128, 256 "), predicted(slide, NETWORK, **request):
        pass
