from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from monai.inferers import SlidingWindowInferer
from scipy.ndimage import gaussian_filter

from lightmuseg.areas.area import TissueMask, WholeSlide
from lightmuseg.engine.pipeline import UNREAD, fill_rows
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.engine.rows import MemoryRows, RowStore
from lightmuseg.networks import LightMuSeg
from lightmuseg.runtimes import torch_runtime
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers.opening import open_slide
from lightmuseg.wsi.readers.reader import UnreadablePixels

SIDE = 128
NAMES = ["tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris"]


def random_network(channels, stride=2):
    """LightMuSeg whose random weights give maps that change from place to place."""
    torch.manual_seed(1)
    network = LightMuSeg(out_channels=channels, encoder_weights=None, output_stride=stride)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    smooth = torch.nn.functional.interpolate(torch.randn(2, 3, 8, 8), size=(SIDE, SIDE), mode="bicubic")
    with torch.no_grad():
        network(smooth)
        network.head.conv.weight *= 20
        logits = network.eval()(smooth)
        network.head.conv.bias -= logits.mean(dim=(0, 2, 3))
    return network


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A lossless slide of smooth colours, and its pixels."""
    rng = np.random.default_rng(0)
    pixels = gaussian_filter(rng.standard_normal((650, 556, 3)), (9, 9, 0))
    pixels = np.uint8(np.clip(128 + 60 * pixels / pixels.std(), 0, 255))
    path = tmp_path_factory.mktemp("slides") / "smooth.tif"
    options = {"tile": (SIDE, SIDE), "photometric": "rgb", "compression": "adobe_deflate"}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    return SimpleNamespace(path=path, pixels=pixels)


def plain_reference(pixels, runtime, overlap, factor, batch_size=3):
    """The whole region by MONAI's inferer; probabilities [C, H, W], or [1, H, W] of one class, averaged to factor.

    Around it lie 32 pixels, and what is missing to whole pixels of the map, mirrored.
    """
    sides = [(32, 32 + -side % factor) for side in pixels.shape[:2]]
    padded = np.pad(pixels, [*sides, (0, 0)], mode="reflect")
    image = torch.from_numpy(padded).permute(2, 0, 1)[None].float()
    inferer = SlidingWindowInferer((runtime.tile_size,) * 2, batch_size, overlap, mode="gaussian")
    logits = inferer(image, lambda tiles: torch.from_numpy(runtime(np.uint8(tiles.permute(0, 2, 3, 1)))))
    frame = slice(32 // runtime.output_stride, -32 // runtime.output_stride)
    logits = logits[:, :, frame, frame]
    probabilities = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
    if factor > runtime.output_stride:
        probabilities = torch.nn.functional.avg_pool2d(probabilities, factor // runtime.output_stride)
    return probabilities[0].numpy()


def classes_of(probabilities):
    return np.uint8(probabilities[0] > 0.5) if len(probabilities) == 1 else np.uint8(probabilities.argmax(0))


def segmented(
    path, runtime, folder, area=None, overlap=0.25, factor=2, names=("tumor",), batch_size=3, view=None, progress=None,
    tissue=None,
):  # fmt: skip
    """The map that the engine makes and, beside it, its probabilities and records; in memory where folder is None."""
    with open_slide(path) as reader:
        view = view or ModelView(reader, 0.25)
        area = area or WholeSlide(reader.levels[0].width, reader.levels[0].height)
        plan = plan_tiles((view.width, view.height), view.scale, area, runtime.tile_size, overlap, factor)
        about = plan, 0.25 * factor, view.scale * factor, names
        store = RowStore(folder, *about) if folder else MemoryRows(*about)
        fill_rows(view, area, plan, runtime, store, batch_size, True, progress, tissue)
    whole = np.concatenate(list(store.bands(1000)))
    return whole, np.concatenate(list(store.bands(1000, "probabilities")), axis=1), list(store.records())


@pytest.mark.parametrize(("channels", "stride", "factor"), [(1, 2, 2), (5, 2, 2), (5, 2, 8), (1, 1, 1), (5, 1, 2)])
@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_map_is_that_of_a_plain_sliding_window(slide, tmp_path, channels, stride, factor, overlap):
    runtime = torch_runtime(random_network(channels, stride), tile_size=SIDE)
    names = NAMES[: max(1, channels - 1)]
    whole, probabilities, _ = segmented(slide.path, runtime, tmp_path, None, overlap, factor, names)
    expected = plain_reference(slide.pixels, runtime, overlap, factor)
    assert whole.shape == expected.shape[1:]
    assert np.mean(whole != classes_of(expected)) <= 1e-4
    assert np.abs(probabilities / 255 - expected).max() <= 0.5 / 255 + 1e-4
    assert len(np.unique(whole)) == max(2, channels)


def test_real_slide_is_that_of_a_plain_sliding_window(data, tmp_path):
    path = data / "slides" / "CMU-1-Small-Region.svs"
    runtime = torch_runtime(random_network(5), tile_size=512)
    with open_slide(path, mpp=0.25) as reader:
        view = ModelView(reader, 0.25)
        whole, _, _ = segmented(path, runtime, tmp_path, None, 0.0, 2, NAMES, 4, view)
    with open_slide(path, mpp=0.25) as reader:
        expected = plain_reference(reader.read(0, 0, 0, 2220, 2967), runtime, 0.0, 2, 4)
    assert np.mean(whole != classes_of(expected)) <= 1e-4


def test_area_keeps_what_it_covers_and_counts_it(slide, tmp_path):
    runtime = torch_runtime(random_network(5), tile_size=SIDE)
    whole, *_ = segmented(slide.path, runtime, tmp_path / "whole", names=NAMES)
    grid = np.zeros((41, 35), bool)
    grid[5:12, 3:9] = grid[33:41, 30:35] = True
    part, _, records = segmented(slide.path, runtime, tmp_path / "part", TissueMask(grid, 16.0), names=NAMES)
    # an output pixel is two of level 0, a grid's 16
    wanted = np.kron(grid, np.ones((8, 8), bool))[: part.shape[0], : part.shape[1]]
    assert np.array_equal(part, np.where(wanted, whole, 0))
    counted = np.sum([record["counts"]["tissue"] for record in records], axis=0)
    assert np.array_equal(counted, np.bincount(whole[wanted], minlength=5))


@pytest.mark.parametrize("factor", [2, 8])
def test_glass_has_no_class_no_probability_and_no_uncertainty(slide, tmp_path, factor):
    runtime = torch_runtime(random_network(5), tile_size=SIDE)
    analysed, tissue = np.random.default_rng(5).random((2, 41, 35)) < 0.5
    areas = TissueMask(analysed, 16.0), TissueMask(tissue, 16.0)
    whole, probabilities, looked = segmented(
        slide.path, runtime, tmp_path / "all", areas[0], factor=factor, names=NAMES
    )
    part, shown, records = segmented(
        slide.path, runtime, tmp_path / "part", areas[0], factor=factor, names=NAMES, tissue=areas[1]
    )
    rows, columns = (((np.arange(side) + 0.5) * factor // 16).astype(int) for side in part.shape)
    kept = (analysed & tissue)[np.ix_(rows, columns)]
    assert np.array_equal(part, np.where(kept, whole, 0))
    assert np.array_equal(shown, np.where(kept, probabilities, 0))
    counts = [record["counts"] for record in records]
    assert sum(count["analysed"] for count in counts) == analysed[np.ix_(rows, columns)].sum()
    assert np.array_equal(np.sum([count["tissue"] for count in counts], axis=0), np.bincount(part[kept], minlength=5))
    samples = sum(sum(record["entropies"]["samples"]) for record in records)
    assert samples == kept[::4, ::4].sum() < sum(sum(record["entropies"]["samples"]) for record in looked)


class Broken(ModelView):
    """A slide that cannot be read in one place."""

    def read_batch(self, corners_m, size):
        tiles = super().read_batch(corners_m, size)
        inside = [x <= 250 < x + size and y <= 310 < y + size for x, y in corners_m]
        return [UnreadablePixels("slide: corrupt at 250, 310") if hit else tile for hit, tile in zip(inside, tiles)]


def test_what_cannot_be_read_is_marked_and_the_rest_is_as_it_was(slide, tmp_path):
    runtime = torch_runtime(random_network(1), tile_size=SIDE)
    whole, *_ = segmented(slide.path, runtime, tmp_path / "whole", overlap=0.0)
    with open_slide(slide.path) as reader:
        part, probabilities, records = segmented(
            slide.path, runtime, tmp_path / "part", overlap=0.0, view=Broken(reader, 0.25)
        )
    lost = np.zeros_like(whole, bool)
    # tiles begin at -32
    lost[224 // 2 : 352 // 2, 224 // 2 : 352 // 2] = True
    assert np.array_equal(part == UNREAD, lost)
    assert np.array_equal(part[~lost], whole[~lost])
    assert (probabilities[0][lost] == 0).all()
    assert [record["unread"] for record in records if record["unread"]] == [[["slide: corrupt at 250, 310"]]]
    assert sum(record["counts"]["unread"] for record in records) == lost.sum()


@pytest.fixture
def damaged(slide, tmp_path):
    """The slide with bytes of its tile at 256, 384 that are no picture."""
    content = bytearray(slide.path.read_bytes())
    with tifffile.TiffFile(slide.path) as file:
        page = file.pages[0]
        number = 3 * -(-page.imagewidth // SIDE) + 2
        start, length = page.dataoffsets[number], page.databytecounts[number]
    content[start : start + length] = bytes([7]) * length
    path = tmp_path / "damaged.tif"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("factor", [2, 8])
def test_only_the_pixels_of_a_damaged_tile_are_unread(slide, damaged, tmp_path, factor):
    runtime = torch_runtime(random_network(5), tile_size=SIDE)
    whole, *_ = segmented(slide.path, runtime, tmp_path / "whole", factor=factor, names=NAMES)
    part, _, records = segmented(damaged, runtime, tmp_path / "part", factor=factor, names=NAMES)
    lost = np.zeros_like(whole, bool)
    lost[384 // factor : 512 // factor, 256 // factor : 384 // factor] = True
    assert np.array_equal(part == UNREAD, lost)
    # the network sees white where nothing was read, and that reaches as far as a tile does
    far = np.ones_like(lost)
    far[(384 - SIDE) // factor : (512 + SIDE) // factor, (256 - SIDE) // factor : (384 + SIDE) // factor] = False
    assert np.array_equal(part[far], whole[far])
    assert np.mean(part[~lost] != whole[~lost]) < 0.1
    reasons = [reason for record in records for reasons in record["unread"] for reason in reasons]
    assert len(set(reasons)) == 1
    assert "256, 384" in reasons[0]
    # tiles begin every 96 pixels from -32: three columns (160, 256, 352) and two rows (352, 448) of them reach into it
    assert len(reasons) == 6
    assert sum(record["counts"]["unread"] for record in records) == lost.sum()


def test_resumed_run_counts_each_unread_tile_once(damaged, tmp_path, monkeypatch):
    runtime = torch_runtime(random_network(1), tile_size=SIDE)
    _, _, once = segmented(damaged, runtime, tmp_path / "once")
    save = RowStore.save
    for stop in range(len(once) - 1):

        def killed(self, row, *arrays, stop=stop):
            save(self, row, *arrays)
            if row == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(RowStore, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            segmented(damaged, runtime, tmp_path / str(stop))
        monkeypatch.undo()
        _, _, records = segmented(damaged, runtime, tmp_path / str(stop))
        assert [record["unread"] for record in records] == [record["unread"] for record in once]


def test_run_that_goes_on_gives_the_same_bits(slide, tmp_path):
    runtime = torch_runtime(random_network(5), tile_size=SIDE)
    once = segmented(slide.path, runtime, tmp_path / "rows", overlap=0.4, names=NAMES)
    rows = sorted((tmp_path / "rows").iterdir())
    contents = [row.read_bytes() for row in rows]
    for first in (0, 1, 2, len(rows) - 1):
        for row in rows[first:]:
            row.unlink()
        again = segmented(slide.path, runtime, tmp_path / "rows", overlap=0.4, names=NAMES)
        assert np.array_equal(again[0], once[0])
        assert [row.read_bytes() for row in rows] == contents


def test_rows_in_memory_are_those_on_disk(slide, tmp_path):
    runtime = torch_runtime(random_network(5), tile_size=SIDE)
    on_disk, in_memory = (segmented(slide.path, runtime, folder, names=NAMES) for folder in (tmp_path, None))
    assert np.array_equal(in_memory[0], on_disk[0])
    assert np.array_equal(in_memory[1], on_disk[1])
    assert in_memory[2] == on_disk[2]


def test_progress_is_of_all_tiles_also_where_a_run_goes_on(slide, tmp_path):
    runtime = torch_runtime(random_network(1), tile_size=SIDE)
    calls = []
    for _ in range(2):
        segmented(slide.path, runtime, tmp_path, overlap=0.0, progress=lambda *call: calls.append(call))
        sorted(tmp_path.iterdir())[-1].unlink()
    # six rows of five tiles, three a batch; the last row's cells are reached by the row before too, whose tiles are 20
    # to 24
    assert calls[:11] == [(done, 30) for done in range(0, 31, 3)]
    assert calls[11:] == [(done, 30) for done in range(18, 31, 3)]


def test_finished_run_reads_nothing(slide, tmp_path):
    runtime = torch_runtime(random_network(1), tile_size=SIDE)
    segmented(slide.path, runtime, tmp_path)

    class Closed(ModelView):
        def read_batch(self, corners_m, size):
            raise AssertionError("reads")

    with open_slide(slide.path) as reader:
        segmented(slide.path, runtime, tmp_path, view=Closed(reader, 0.25))


def test_error_of_a_stage_ends_the_run(slide, tmp_path):
    runtime = torch_runtime(random_network(1), tile_size=SIDE)

    class Faulty(ModelView):
        def read_batch(self, corners_m, size):
            if (224, 224) in corners_m:
                raise OSError(5, "Input/output error", "slide")
            return super().read_batch(corners_m, size)

    with open_slide(slide.path) as reader, pytest.raises(OSError, match="Input/output"):
        segmented(slide.path, runtime, tmp_path, overlap=0.0, view=Faulty(reader, 0.25))
    assert len(list(tmp_path.iterdir())) < 6
