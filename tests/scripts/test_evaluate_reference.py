"""The figures of scripts/evaluate_reference.py against MONAI, scikit-learn, scikit-image and closed forms."""

import importlib
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import tifffile
import torch
from monai.metrics import CalibrationErrorMetric, DiceMetric
from PIL import Image
from skimage.color import hed2rgb, rgb2hed
from sklearn.metrics import brier_score_loss, confusion_matrix
from stand_in_networks import Dark, DarkAndRed

from lightmuseg import Segmenter
from lightmuseg.errors import InputError
from lightmuseg.models.card import ModelCard, save_model
from lightmuseg.models.model import Model
from lightmuseg.networks import LightMuSeg

PATIENT, CODED = "TCGA-A2-A1G6", "TCGA-A2-A0D2"
CLASSES = {"tumor": [1], "stroma": [2]}


@pytest.fixture(scope="module")
def module(root):
    """Import a module of scripts/reference, or the script."""
    sys.path.insert(0, str(root / "scripts"))
    yield importlib.import_module
    sys.path.remove(str(root / "scripts"))


@pytest.fixture(scope="module")
def scores(module):
    return module("reference.scores")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of data with two small pictures, one annotated by codes, and a model of each kind."""
    folder, chance = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for patient, kind, values in ((PATIENT, "tumor_masks", (0, 255)), (CODED, "masks", (0, 1, 2, 4))):
        name = f"{patient}-DX1_xmin1_ymin1_MPP-0.2500.png"
        for part in ("rgbs", kind):
            (folder / "bcss" / part).mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(60, 200, (65, 90, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        # where one class is as probable as the other, rounding chooses
        pixels[pixels == 128] = 129
        mask = chance.choice(np.uint8(values), (13, 18)).repeat(50, axis=0).repeat(50, axis=1)
        Image.fromarray(pixels).save(folder / "bcss" / "rgbs" / name)
        Image.fromarray(mask).save(folder / "bcss" / kind / name)
    torch.manual_seed(0)
    for name, classes in (("tumor", {"tumor": [1]}), ("tissue", CLASSES)):
        card = ModelCard(classes, network={"msffm": False}, mpp=0.3, tile_size=256)
        network = LightMuSeg(out_channels=card.channels, encoder_weights=None, msffm=False)
        save_model(folder / f"{name}.pt", network.state_dict(), card)
    return folder


@pytest.fixture
def evaluation(module, small, tmp_path):
    def make(name="tumor", runtime=None):
        runtime = runtime or (Dark() if name == "tumor" else DarkAndRed())
        return module("reference.evaluation").Evaluation(small / f"{name}.pt", small, tmp_path, runtime)

    return make


@pytest.mark.parametrize(("name", "patient"), [("tumor", PATIENT), ("tissue", CODED), ("tissue", PATIENT)])
def test_counts_and_dice_are_those_of_what_a_user_gets(module, evaluation, small, name, patient):
    model = evaluation(name)
    figures = model.measure(patient, "dice")["as it is"]
    place = module("reference.pictures_at_hand").annotated(small, patient)
    found = Segmenter(small / f"{name}.pt", runtime=model._runtime).predict(place.pixels(), 0.3)
    _, probabilities = model.segment(place.pixels(), 0.3)
    assert np.array_equal(probabilities[0] > 127 if name == "tumor" else probabilities.argmax(0), found)
    mask = np.asarray(Image.open(place.mask))
    truth = np.uint8(mask == 255) if patient == PATIENT else np.where(mask == 4, 0, mask)
    known = np.ones_like(truth, bool) if patient == PATIENT else mask > 0
    matrix = confusion_matrix(truth[known], found[known], labels=[0, 1, 2])
    names = ["tumor"] if name == "tumor" or patient == PATIENT else list(CLASSES)
    if name == "tumor":
        matrix = confusion_matrix(truth[known] == 1, found[known] == 1)
    assert figures["counts"] == {
        one: [matrix[i, i], matrix[:, i].sum() - matrix[i, i], matrix[i].sum() - matrix[i, i]]
        for i, one in enumerate(names, start=1)
    }
    tiles = [(slice(y, y + 512), slice(x, x + 512)) for y in (0, 138) for x in (0, 388)]
    for index, one in enumerate(names, start=1):
        metric = DiceMetric(ignore_empty=False, ignore_index=255)
        label = np.where(known, truth == index, 255)
        for tile in tiles:
            metric(
                torch.tensor(found[tile] == index)[None, None].float(), torch.tensor(label[tile])[None, None].float()
            )
        assert figures["tiles"][one] == pytest.approx(metric.aggregate().item(), abs=1e-6)


def test_every_reading_of_a_picture_is_measured_once(evaluation, monkeypatch):
    measures = ("dice", "flips", "scales", "overlaps", "robustness", "edges")
    first = {measure: evaluation().measure(PATIENT, measure) for measure in measures}
    assert {key for found in first.values() for key in found} >= {"as it is", "flips", "mpp 0.5", "stain -0.3", "edges"}
    assert sum(map(len, first.values())) == 2 + 7 + 4 + 24 + 1
    again = evaluation()
    monkeypatch.setattr(again, "segment", None)
    assert {measure: again.measure(PATIENT, measure) for measure in measures} == first
    # darkness of a pixel knows neither neighbours nor direction
    whole = first["dice"]["as it is"]["counts"]
    assert first["flips"]["flips"]["counts"] == whole
    assert first["overlaps"]["overlap 0.5"]["counts"] == whole
    darker = first["robustness"]["brightness -0.3"]["counts"]["tumor"]
    assert darker[0] + darker[1] > whole["tumor"][0] + whole["tumor"][1]


def test_edges_are_the_same_pixels_alone_and_with_their_surroundings(module, evaluation, monkeypatch):
    monkeypatch.setattr(module("reference.evaluation"), "CROP", 300)
    found = evaluation().measure(PATIENT, "edges")["edges"]
    assert found["crops"] == 2
    assert all(alone == whole > 0 for alone, whole in found["sides"].values())

    class Bordered(Dark):
        """Calls the left half of a tile tumor: of a crop's left edge all of it."""

        def __call__(self, tiles):
            return np.broadcast_to(np.where(np.arange(128) < 64, 1.0, -1.0), (len(tiles), 1, 128, 128)).astype(
                np.float32
            )

    monkeypatch.setattr(module("reference.evaluation"), "CROP", 256)
    model = evaluation(runtime=Bordered())
    model._kept = model._kept / "bordered"
    alone, _ = model.measure(PATIENT, "edges")["edges"]["sides"]["left"]
    assert alone == 2 * 8 * 256


def test_calibration_agrees_with_monai_and_scikit_learn(scores):
    chance = np.random.default_rng(1)
    levels = chance.choice([level for level in range(256) if level % 17], 20_000).astype(np.uint8)
    hits = chance.random(20_000) < (levels / 255) ** 2
    kept = scores.reliability(levels, hits)
    metric = CalibrationErrorMetric(num_bins=15)
    metric(torch.tensor(levels / 255)[None, None], torch.tensor(hits)[None, None])
    assert scores.expected_calibration_error(kept["bins"]) == pytest.approx(metric.aggregate().item(), abs=1e-5)
    assert scores.brier(kept) == pytest.approx(brier_score_loss(hits, levels / 255), abs=1e-6)


def test_calibration_in_closed_form(scores):
    levels = np.uint8([51] * 10 + [255] * 10)
    # a fifth where a fifth was said; a half where it was certain
    kept = scores.reliability(levels, np.array([True] * 2 + [False] * 8 + [True] * 5 + [False] * 5))
    assert scores.expected_calibration_error(kept["bins"]) == pytest.approx(0.25)
    assert scores.brier(kept) == pytest.approx((2 * 0.8**2 + 8 * 0.2**2 + 5) / 20)
    assert [n for n, _, _ in kept["bins"]] == [0, 0, 0, 10, *[0] * 10, 10]
    assert math.isnan(scores.expected_calibration_error([[0, 0, 0]]))


def test_disturbances_are_what_they_say(module):
    made = module("reference.disturbances")
    chance = np.random.default_rng(2)
    pixels = chance.integers(120, 200, (40, 50, 3), np.uint8)
    assert np.array_equal(made.stain_shifted(pixels, 0), pixels)
    stained = hed2rgb(chance.uniform(0.02, 0.06, (40, 50, 3)))
    other = rgb2hed(stained) * [1.2, 0.8, 1]
    shifted = made.stain_shifted((255 * stained).round().astype(np.uint8), 0.2)
    assert np.abs(shifted - 255 * hed2rgb(other)).max() < 2.5
    assert np.array_equal(made.disturbed(pixels, 0.5, "brightness", -0.1)[0], np.rint(0.9 * pixels.astype(np.float32)))
    step = np.zeros((9, 400, 3), np.uint8)
    step[:, 200:] = 200
    blurred, _ = made.disturbed(step, 0.5, "blur", 2.0)
    # a step becomes the normal distribution's integral: 4 pixels of 0.5 um are one sigma
    expected = 100 * (1 + math.erf(0.5 / 4 / 2**0.5))
    assert blurred[4, 200, 0] == pytest.approx(expected, abs=1.5)
    assert made.disturbed(pixels, 0.5, "scale", 1.25)[1] == 0.625
    errors = [np.abs(made.disturbed(pixels, 0.5, "jpeg", q)[0] - pixels.astype(int)).mean() for q in (70, 40, 20)]
    assert errors == sorted(errors)


def test_glass_lies_far_from_what_is_stained(module, tmp_path, evaluation, monkeypatch):
    chance = np.random.default_rng(3)
    side, radius, mpp = 900, 150, 0.5
    rows, columns = np.mgrid[:side, :side] - side / 2 + 0.5
    inside = rows**2 + columns**2 < radius**2
    pixels = np.where(inside[..., None], (170, 90, 160), (240, 238, 241)) + chance.integers(-3, 4, (side, side, 3))
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(tmp_path / "slides" / "a.tif", pixels.astype(np.uint8), tile=(256, 256))
    model = evaluation()
    model.data = tmp_path
    monkeypatch.setattr(module("reference.evaluation"), "GLASS_SLIDES", {"slides/a.tif": mpp})
    found = model.glass()["a"]
    # at 0.6 um/px, 24 um and half a pixel of 4 um from the disc
    expected = (side**2 - math.pi * (radius + 48) ** 2) * (mpp / 0.6) ** 2
    assert found["glass"] == pytest.approx(expected, rel=0.02)
    assert found["network"] == found["with the tissue mask"] == 0

    class Everything(Dark):
        def __call__(self, tiles):
            return np.ones((len(tiles), 1, 128, 128), np.float32)

    model = evaluation(runtime=Everything())
    model.data, model._kept = tmp_path, tmp_path / "everything"
    found = model.glass()["a"]
    assert found["network"] == found["glass"] > 3 * found["with the tissue mask"] >= 0


def row(name, seed, dice, patients=("p", "q"), **more):
    counts = {"counts": {"tumor": [round(1000 * dice), 1000 - round(1000 * dice), 1000 - round(1000 * dice)]},
              "tiles": {"tumor": dice / 2}}  # fmt: skip
    return {"name": name, "seed": seed, "mpp": 0.5, "classes": ["tumor"], "tumor": "tumor",
            "patients": {patient: {"as it is": counts} for patient in patients}, **more}  # fmt: skip


def test_tables_say_means_spreads_and_who_wins(module):
    tables = module("reference.tables")
    rows = [row("a", 1, 0.80), row("a", 2, 0.84), row("b", 1, 0.5, ("p",)), row("b", 1, 0.7, ("q",)), row("b", 2, 0.6)]
    lines = tables.dice_block(rows).splitlines()
    assert lines[2] == "| a | 0.5 | 82.0 ± 2.8 | 82.0 ± 2.8 | 82.0 ± 2.8 | 41.0 ± 1.4 |"
    assert lines[3] == "| b | 0.5 | 55.0 ± 7.1 | 65.0 ± 7.1 | 60.0 ± 0.0 | 30.0 ± 0.0 |"
    assert lines[-1] == (
        "**Who wins:** a, 22.0 points ahead of b; that is more than twice its standard error over seeds, 2.0."
    )
    patients, alike = ("TCGA-A2-A1G6", "TCGA-S3-AA10"), {"group": "Networks"}
    rows = [row("V2", 1, 0.9, patients, role="tumor", **alike), row("U", 1, 0.88, patients, role="unet", **alike)]
    rows.append(row("tumor", 0, 0.7, patients[1:], role="tumor"))
    said = tables.targets_block(rows)
    assert "| tumor Dice, TCGA-A2-A1G6 | 0.697 | 0.80 | 0.9: met | dice |" in said
    assert "trained alike | -4.5 | 1 | 2: met | dice |" in said
    # the package's own model, where it never saw the patient
    assert "| tumor Dice, TCGA-S3-AA10 | - | 0.80 | 0.7: **missed** | dice |" in said
    assert "| tumor Dice, TCGA-S3-AA15 | - | 0.80 | not measured | dice |" in said
    assert "which proves nothing" in tables.dice_block(rows)
    # a group of one line compares nothing; patients count alike, whatever their seeds
    assert tables.dice_block([row("V2", 1, 0.9, group="Scale")]) == ""
    rows = [row("a", 0, 0.9, ("p",), role="tissue"), *(row("b", seed, 0.5, ("q",), role="tissue") for seed in (1, 2))]
    assert "tumor Dice, mean of patients | - | 0.78 | 0.7: **missed**" in tables.targets_block(rows)


def test_a_trial_that_was_trained_like_a_network_stands_in_the_table_of_its_dice_alone(module):
    tables = module("reference.tables")
    rows = [row("network", 1, 0.8, group="Networks", role="tumor")]
    rows += [row(name, 1, 0.8, group="Crops") for name in ("trial", "other")]
    for one in rows:
        one["patients"]["p"] |= {"flips": {"counts": {"tumor": [8, 2, 2]}, "network_tiles": 4}}
    said = tables.blocks({"rows": rows, "made": {"pictures": []}})
    assert "| trial | 0.5 |" in said["dice"]
    assert [line for line in said["flips"].splitlines() if "mean of four" in line] == [
        "| network | mean of four | 80.0 | 80.0 | 4 |"
    ]


def test_the_page_shows_the_figures_beside_it(module, root):
    tables, docs = module("reference.tables"), root / "docs"
    content = json.loads((docs / "benchmarks" / "reference.json").read_text(encoding="utf-8"))
    page = (docs / "reference.md").read_text(encoding="utf-8")
    assert tables.filled_in(page, content) == page
    assert tables.as_json(content) == (docs / "benchmarks" / "reference.json").read_text(encoding="utf-8")
    assert all(mark in page for mark in tables.MARKS)


@pytest.mark.parametrize("name", ["tumor", "tissue"])
def test_the_packages_models_state_the_figures_of_the_page(scores, root, name):
    """As these very files were measured."""
    rows = json.loads((root / "docs" / "benchmarks" / "reference.json").read_text(encoding="utf-8"))["rows"]
    (row,) = [row for row in rows if row["name"] == name]
    model = Model.open(name)
    assert model.sha256 == row["sha256"]
    measured = {f"tumor Dice of {patient}": round(scores.dice(figures["as it is"]["counts"]["tumor"]), 3)
                for patient, figures in row["patients"].items()}  # fmt: skip
    assert model.card.figures == measured
    as_it_is = row["patients"]["TCGA-S3-AA10"]["as it is"]
    pooled, tiles = scores.dice(as_it_is["counts"]["tumor"]), as_it_is["tiles"]["tumor"]
    error = scores.expected_calibration_error(as_it_is["tumor"]["bins"])
    text = (root / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {pooled:.3f} | {tiles:.3f} | {error:.3f} |" in text
    if name == "tumor":
        metadata = json.loads((root / "bundle" / "configs" / "metadata.json").read_text(encoding="utf-8"))
        assert metadata["eval_metrics"] == {"pooled_dice": round(pooled, 3), "mean_dice": round(tiles, 3)}


def test_models_are_evaluated_from_a_list(module, small, tmp_path):
    listed = [
        {
            "name": "A b",
            "model": str(small / "tumor.pt"),
            "unseen": [PATIENT, CODED],
            "measures": ["dice", "places"],
            "role": "tumor",
        }
    ]
    (tmp_path / "rows.json").write_text(json.dumps(listed), encoding="utf-8")
    (tmp_path / "page.md").write_text("# By hand\n<!-- dice -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    script, words = module("evaluate_reference"), (str(tmp_path / "rows.json"), str(small), str(tmp_path / "out"))
    script.evaluate(*words, page=str(tmp_path / "page.md"), runtime="torch")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.startswith("# By hand\n<!-- dice -->\n\n|  | um/px | TCGA-A2-A1G6 | TCGA-A2-A0D2 | mean of 2, pooled |")
    assert page.endswith("<!-- end -->\nafter\n")
    assert "old" not in page
    for name in ("reference_a_b.jpg", "reference_reliability.png"):
        assert Image.open(tmp_path / "images" / name).width > 300
    (kept,) = json.loads((tmp_path / "benchmarks" / "reference.json").read_text(encoding="utf-8"))["rows"]
    # 900 x 650 pixels in tiles of 256
    assert kept["patients"][PATIENT]["as it is"]["network_tiles"] >= 4 * 3


def test_figures_of_models_that_are_not_here_are_those_that_are_known(module, small, tmp_path):
    figures = {"as it is": {"counts": {"tumor": [1, 2, 3]}}}
    kept = {"architecture": "LightMuSeg", "mpp": 0.5, "classes": ["tumor"], "tumor": "tumor", "sha256": "0"}
    kept |= {"name": "once", "seed": 9, "role": "unet", "training": "ab", "patients": {PATIENT: figures}}
    fewer = kept | {"name": "then", "patients": {PATIENT: {}}}
    other = kept | {"patients": {CODED: figures | {"jpeg 70": {}, "jpeg 40": {}}}}
    rows = [kept, fewer, other, {"name": "none"}]
    (tmp_path / "known.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    row = {"name": "now", "seed": 2, "training": "ab", "model": str(tmp_path / "gone.pt"), "unseen": [PATIENT]}
    (tmp_path / "rows.json").write_text(json.dumps([row]), encoding="utf-8")
    words = (str(tmp_path / "rows.json"), str(small), str(tmp_path / "out"))
    module("evaluate_reference").evaluate(*words, known=str(tmp_path / "known.json"))
    (found,) = json.loads((tmp_path / "out" / "reference.json").read_text(encoding="utf-8"))["rows"]
    wanted = {key: kept[key] for key in kept if key != "role"}
    assert found == wanted | {"name": "now", "seed": 2}
    with pytest.raises(InputError, match=r"gone\.pt"):
        module("evaluate_reference").evaluate(*words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unseen": []}, "model 1 has a wrong unseen"), ({"measures": ["speed"]}, "speed is none of dice, flips"),
        ({"unseen": ["nobody"]}, "nobody: no such patient"), ({"other": 1}, "other is none of name, model"),
        ({"model": 1}, "model 1 has a wrong model"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_used_is_refused(module, small, tmp_path, change, said):
    row = {"name": "a", "model": str(small / "tumor.pt"), "unseen": [PATIENT]}
    (tmp_path / "rows.json").write_text(json.dumps([row | change]), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        module("evaluate_reference").evaluate(str(tmp_path / "rows.json"), str(small), str(tmp_path / "out"))


@pytest.mark.slow
def test_the_command_of_the_page(root, run, data, tmp_path):
    page = (root / "docs" / "reference.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python scripts/evaluate_reference.py docs.*$", page, re.MULTILINE)
    (tmp_path / "reference.md").write_text(page, encoding="utf-8")
    # in place of what cross_validate.py lists
    for name in re.findall(r"results/study/(\w+\.json)", command):
        shutil.copy(root / "docs" / "benchmarks" / "reference_rows.json", tmp_path / name)
    places = {"DATA": str(data), "results/reference": str(tmp_path / "out"), "docs/reference.md": "reference.md"}
    folders = {"docs/": f"{root}/docs/", "scripts/": f"{root}/scripts/", "results/study/": f"{tmp_path}/"}
    words = [
        places.get(word, re.sub("|".join(folders), lambda found: folders[found[0]], word)) for word in command.split()
    ]
    status, stdout, stderr = run(*words, "--only", "tumor", "--measures", "dice", cwd=tmp_path)
    assert status == 0, stderr
    assert "| tumor | " in stdout
    assert (tmp_path / "benchmarks" / "reference.json").is_file()
