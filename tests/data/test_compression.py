import io

import numpy as np
import pytest
import torch
from PIL import Image

from lightmuseg.data import RandJpegd


def picture(height=41, width=64):
    y, x = np.mgrid[:height, :width]
    channels = (200 + 40 * np.sin(x / 5), 120 + 60 * np.cos(y / 4), 160 + 50 * np.sin((x + y) / 6))
    return np.stack(channels).round().astype(np.uint8)


def as_pillow_has_it(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


@pytest.mark.parametrize("quality", [20, 60, 95])
def test_loss_is_that_of_pillow_at_the_same_quality(quality):
    pixels = picture()
    image = torch.from_numpy(pixels) / 255
    found = RandJpegd("image", (quality, quality), prob=1.0)({"image": image})["image"]
    assert found.shape == image.shape
    assert found.dtype == torch.float32
    found, pillows = found.numpy() * 255, as_pillow_has_it(pixels, quality).astype(float)
    # encoders round a coefficient here and there otherwise; what is lost is the same
    assert np.abs(found - pillows).mean() < 1
    assert np.abs(found - pixels).mean() == pytest.approx(np.abs(pillows - pixels).mean(), rel=0.1)


def test_qualities_are_drawn_and_a_seed_gives_them_again():
    image = torch.from_numpy(picture()) / 255
    transform = RandJpegd("image", (20, 95), prob=1.0)

    def drawn():
        transform.set_random_state(5)
        found = []
        for _ in range(40):
            transform({"image": image})
            found.append(transform.quality)
        return found

    first = drawn()
    assert drawn() == first
    assert min(first) >= 20
    assert max(first) <= 95
    assert len(set(first)) > 20


def test_mask_and_images_that_chance_spares_stay_as_they_are():
    image, label = torch.from_numpy(picture()) / 255, torch.ones(1, 41, 64)
    transform = RandJpegd("image", prob=0.5).set_random_state(0)
    found = [transform({"image": image, "label": label}) for _ in range(40)]
    assert all(one["label"] is label for one in found)
    assert 10 < sum(one["image"] is image for one in found) < 30


@pytest.mark.parametrize("quality", [(0, 50), (50, 101), (60, 50)])
def test_qualities_that_do_not_exist_are_refused(quality):
    with pytest.raises(ValueError, match=f"quality={quality[0]}, {quality[1]}"):
        RandJpegd("image", quality)
