import numpy as np
import pytest
import torch
from monai.transforms import Compose, NormalizeIntensity, ScaleIntensityRange

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg
from lightmuseg.runtimes import torch_runtime


@pytest.fixture
def tiles():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def test_tiles_are_normalised_as_in_training(tiles):
    normalising = Compose([
        ScaleIntensityRange(a_min=0, a_max=255, b_min=0, b_max=1),
        NormalizeIntensity((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), channel_wise=True),
    ])  # fmt: skip
    given = torch_runtime(torch.nn.Identity(), tile_size=64)(tiles)
    for tile, one in zip(tiles, given):
        assert np.allclose(one, normalising(torch.from_numpy(tile).permute(2, 0, 1).float()), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_logits_are_the_networks(tiles, stride):
    torch.manual_seed(0)
    network = LightMuSeg(out_channels=3, encoder_weights=None, output_stride=stride).eval()
    runtime = torch_runtime(network, tile_size=64)
    assert (runtime.out_channels, runtime.output_stride, runtime.tile_size) == (3, stride, 64)
    logits = runtime(tiles)
    assert logits.dtype == np.float32
    assert logits.shape == (3, 3, 64 // stride, 64 // stride)
    normalised = torch_runtime(torch.nn.Identity(), tile_size=64)(tiles)
    with torch.no_grad():
        assert np.allclose(logits, network(torch.from_numpy(normalised)), atol=1e-5)


def test_mixed_precision_is_close_and_recorded(tiles):
    torch.manual_seed(0)
    network = LightMuSeg(encoder_weights=None)
    exact, mixed = (torch_runtime(network, tile_size=64, amp=amp) for amp in (False, True))
    assert 0 < np.abs(exact(tiles) - mixed(tiles)).max() < 0.05
    assert (exact.info.precision, mixed.info.precision) == ("float32", "bfloat16")


def test_tile_size_that_the_network_does_not_take_is_refused():
    with pytest.raises(InputError, match="--tile_size 100"):
        torch_runtime(LightMuSeg(encoder_weights=None), tile_size=100)
