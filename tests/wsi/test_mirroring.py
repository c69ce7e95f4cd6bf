import numpy as np
import pytest

from lightmuseg.wsi.mirroring import mirrored, mirrored_span


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 5), (0, 90), (90, 0), (91, 127)])
def test_places_are_those_of_numpys_reflection(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    assert np.array_equal(mirrored(-before, before + size + after, size), expected)
    # and further on, with nothing of the picture itself
    assert np.array_equal(mirrored(size, after, size), expected[before + size :])


def test_picture_that_one_tile_holds_with_half_the_margin_lies_in_its_middle():
    assert mirrored_span(480, 512) == (-16, 512)
    assert mirrored_span(481, 512) == (-32, 545)
    assert mirrored_span(1, 512) == (-255, 512)
    # without a margin as MONAI's inferer pads
    assert mirrored_span(500, 512, margin=0) == (-6, 512)
    assert mirrored_span(600, 512, margin=0) == (0, 600)
