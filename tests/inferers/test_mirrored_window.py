"""The bundle's window sees a picture mirrored, at any size, and gives what the slide engine gives."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from lightmuseg.areas.area import WholeSlide
from lightmuseg.engine.pipeline import fill_rows
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.engine.rows import MemoryRows
from lightmuseg.inferers import MirroredWindowInferer
from lightmuseg.runtimes import torch_runtime
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers import ArrayReader

TILE = 64
# such as see a picture's edge, by the zeros around their tile
EDGES = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 9, padding=4), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 9, padding=4))


@pytest.fixture(autouse=True)
def network():
    torch.manual_seed(0)
    for module in EDGES:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return EDGES.eval()


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (20, 30), (48, 49), (64, 64), (64, 150), (131, 90)])
@pytest.mark.parametrize("margin", [0, 16])
@torch.no_grad()
def test_logits_are_those_of_the_picture_padded_by_numpy(network, size, margin):
    pads = []
    for side in size:
        missing = TILE - side
        pads.append((missing // 2, missing - missing // 2) if side <= TILE - margin else (margin, margin))
    pixels = picture(*size).astype(np.float32)
    padded = torch.from_numpy(np.pad(pixels, [*pads, (0, 0)], mode="reflect")).permute(2, 0, 1)[None]
    expected = SlidingWindowInferer((TILE, TILE), 2, 0.25, mode="gaussian")(padded, network)
    (upper, lower), (left, right) = ((before, before + side) for (before, _), side in zip(pads, size))
    expected = expected[:, :, upper:lower, left:right]
    inferer = MirroredWindowInferer((TILE, TILE), 2, 0.25, mode="gaussian", margin=margin)
    found = inferer(torch.from_numpy(pixels).permute(2, 0, 1)[None], network)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(150, 131), (64, 64), (40, 30), (5, 90)])
@torch.no_grad()
def test_slide_engine_gives_the_same_map(network, size):
    pixels = picture(*size)
    runtime = torch_runtime(torch.nn.Sequential(network, torch.nn.BatchNorm2d(1).eval()), tile_size=TILE)
    view = ModelView(ArrayReader(pixels, 0.5), 0.5)
    area = WholeSlide(view.width, view.height)
    plan = plan_tiles((view.width, view.height), 1.0, area, TILE, 0.25, 1)
    rows = MemoryRows(plan, 0.5, 1.0, ["tumor"])
    fill_rows(view, area, plan, runtime, rows, 2, probabilities=False)
    classes = np.concatenate([band.copy() for band in rows.bands(1000)])
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    inferer = MirroredWindowInferer((TILE, TILE), 2, 0.25, mode="gaussian")
    logits = inferer(whole, lambda tiles: torch.from_numpy(runtime(np.uint8(tiles.permute(0, 2, 3, 1)))))[0, 0].numpy()
    assert classes.shape == size
    clear = np.abs(logits) > 1e-4
    assert clear.mean() > 0.99
    assert np.array_equal(classes[clear], (logits > 0)[clear])


@torch.no_grad()
def test_piece_with_mirrored_surroundings_is_seen_as_the_piece_alone(network):
    """What it sees outside makes no difference, whether it is there or made; white would."""
    piece = picture(200, 200)
    inferer = MirroredWindowInferer((TILE, TILE), 2, 0.0)
    framed = np.pad(piece, ((64, 64), (64, 64), (0, 0)), mode="reflect")
    white = np.pad(piece, ((64, 64), (64, 64), (0, 0)), constant_values=255)
    alone, mirrored, glass = (
        network_map[..., 64 * (len(pixels) > 200) :, 64 * (len(pixels) > 200) :][..., :8, :8]
        for pixels in (piece, framed, white)
        for network_map in [inferer(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), network)]
    )
    torch.testing.assert_close(alone, mirrored, rtol=0, atol=1e-3)
    assert (alone - glass).abs().max() > 1


@torch.no_grad()
def test_meta_data_stay(network):
    image = MetaTensor(torch.rand(1, 3, 70, 50), meta={"filename_or_obj": ["a.png"]})
    logits = MirroredWindowInferer((TILE, TILE), 2, 0.25)(image, network)
    assert isinstance(logits, MetaTensor)
    assert logits.shape == (1, 1, 70, 50)
    assert logits.meta["filename_or_obj"] == ["a.png"]
