import numpy as np
import pytest
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers import ArrayReader, open_slide


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)


def test_pixels_in_memory_read_as_the_same_pixels_in_a_file(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    with ArrayReader(pixels, 0.5) as own, open_slide(tmp_path / "picture.png", mpp=0.5) as other:
        assert own.levels == other.levels
        assert own.mpp == other.mpp == 0.5
        for box in ((0, 0, 90, 70), (-5, 60, 40, 40), (80, -5, 20, 20), (100, 0, 4, 4)):
            assert np.array_equal(own.read(0, *box), other.read(0, *box))
        for mpp in (0.25, 0.5, 0.6):
            one, another = (ModelView(reader, mpp).read_batch([(0, 0), (30, 20)], 64) for reader in (own, other))
            assert np.array_equal(one, another)
        assert np.array_equal(ModelView(own, 0.5).read_batch([(10, 5)], 64)[0], pixels[5:69, 10:74])


@pytest.mark.parametrize(
    ("wrong", "mpp", "message"),
    [
        (np.zeros((4, 4), np.uint8), 0.5, r"uint8 \[4, 4\] is no picture; give uint8 \[H, W, 3\]"),
        (np.zeros((4, 4, 3)), 0.5, r"float64 \[4, 4, 3\]"), (np.zeros((0, 4, 3), np.uint8), 0.5, r"\[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.uint8), 500, "500 um per pixel is outside"),
        (np.zeros((4, 4, 3), np.uint8), None, "does not say its um per pixel"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(wrong, mpp, message):
    with pytest.raises(InputError, match=message):
        ArrayReader(wrong, mpp)
