"""scripts/reproduce.py on a small dataset; its bundle runs are real, but in this process, to spare their start."""

import json
import statistics
import sys

import pytest
from monai.bundle import run as run_bundle
from PIL import Image

OPTIONS = {"max_epochs": 1, "tile_size": 64, "batch_size": 2, "num_workers": 0, "encoder_weights": "None"}


@pytest.fixture(scope="module")
def script(root):
    sys.path.insert(0, str(root / "scripts"))
    import reproduce

    yield reproduce
    sys.path.remove(str(root / "scripts"))


@pytest.fixture
def calls(script, monkeypatch):
    """The keys and output folders of the bundle runs that were made."""
    made = []

    def bundle(key, configs, options):
        made.append((key, options["output_dir"].parent.name))
        words = {name: str(value) for name, value in options.items() if name.endswith("dir") or name == "checkpoint"}
        plain = {name: None if value == "None" else value for name, value in {**options, **words}.items()}
        run_bundle(run_id=key, config_file=configs, logging_file=False, **plain)

    monkeypatch.setattr(script, "_bundle", bundle)
    monkeypatch.setattr(script, "_seconds", lambda network, tile: 0.25)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    return made


def cells(markdown, title):
    header = next(line for line in markdown.splitlines() if line.startswith("| |"))
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {title} "))
    return dict(zip(*([cell.strip() for cell in row.split("|")[2:-1]] for row in (header, line))))


def test_table_has_our_figure_the_papers_and_their_difference(script, calls, dataset, tmp_path, capsys):
    script.reproduce("table3", dataset, tmp_path, rows="v1", tasks="binary,multiclass", seeds="1,2", **OPTIONS)
    runs = [f"v1-{task}-seed{seed}" for task in ("binary", "multiclass") for seed in (1, 2)]
    assert calls == [(key, run) for run in runs for key in ("training", "evaluating")]
    assert "table3.md" in capsys.readouterr().out

    scores = [json.loads((tmp_path / run / "test" / "run.json").read_text())["metrics"] for run in runs]
    dice = [100 * metrics["val_mean_dice"] for metrics in scores[:2]]
    markdown = (tmp_path / "table3.md").read_text()
    row = cells(markdown, "LightMuSeg V1")
    mean = statistics.fmean(dice)
    assert row["dice"] == f"{mean:.2f} ± {statistics.stdev(dice):.2f} (76.15; {mean - 76.15:+.2f})"
    f1 = statistics.fmean(100 * metrics["val_pooled_dice_tumor"] for metrics in scores[2:])
    assert row["f1 tumor"].startswith(f"{f1:.2f} ±")
    assert row["f1 tumor"].endswith(f"(81.02; {f1 - 81.02:+.2f})")
    assert row["million parameters"] == "4.83"
    assert row["tiles per second"] == "4.00"
    assert row["started from"] == "random"
    cited = cells(markdown, "vit, as published")
    assert (cited["dice"], cited["iou"]) == ("(79.32)", "(69.66)")

    # the small dataset has neither, and what is not there has no score
    assert not any("necrosis" in column or "lymphocytic" in column for column in row)

    record = json.loads((tmp_path / "table3.json").read_text())
    assert record["seeds"] == [1, 2]
    assert record["options"]["max_epochs"] == 1
    assert len(record["runs"]) == 4
    assert "- hardware: CPU" in markdown
    assert str(tmp_path) not in markdown
    assert Image.open(tmp_path / "table3.png").size[0] > 500

    # started again, what is done is left: trainings see that they have ended, evaluations are not run
    before = (tmp_path / "v1-binary-seed1" / "test" / "run.json").stat().st_mtime_ns
    calls.clear()
    script.reproduce("table3", dataset, tmp_path, rows="v1", tasks="binary", seeds="1", **OPTIONS)
    assert calls == [("training", "v1-binary-seed1")]
    assert (tmp_path / "v1-binary-seed1" / "test" / "run.json").stat().st_mtime_ns == before


def test_checkpoints_are_evaluated_without_training(script, calls, dataset, weights, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "v2-binary.pt").write_bytes(weights.read_bytes())
    options = {key: OPTIONS[key] for key in ("tile_size", "num_workers")}
    script.reproduce("table1", dataset, tmp_path / "out", rows="v2", checkpoints=str(tmp_path / "given"), **options)
    assert [key for key, _ in calls] == ["evaluating"]
    assert cells((tmp_path / "out" / "table1.md").read_text(), "LightMuSeg V2")["started from"] == "v2-binary.pt"


def test_rows_run_the_tasks_that_the_paper_gives_figures_of(script, monkeypatch, dataset, tmp_path):
    ran = []
    monkeypatch.setattr(script, "_speed", lambda name, path: dict.fromkeys((*script.PLAIN, "hardware"), 1))
    monkeypatch.setattr(script, "_train", lambda name, task, *rest: ran.append((name, task)))
    monkeypatch.setattr(script, "_evaluate", lambda *arguments: {})
    monkeypatch.setattr(script, "_read", lambda path: {"encoder_weights": "random"} if path.name == "run.json" else {})
    monkeypatch.setattr(script, "write_report", lambda *arguments: None)
    script.reproduce("table3", dataset, tmp_path, rows="v3,v1_no_msffm,v3_no_msffm,resnet34")
    both = [(name, task) for name in ("v3", "resnet34") for task in ("binary", "multiclass")]
    assert sorted(ran) == sorted([*both, ("v1_no_msffm", "binary"), ("v3_no_msffm", "multiclass")])


def test_other_dataset_is_evaluated_anew(script, calls, dataset, weights, tmp_path):
    (tmp_path / "v2-binary.pt").write_bytes(weights.read_bytes())
    options = {
        "rows": "v2",
        "checkpoints": str(tmp_path),
        **{key: OPTIONS[key] for key in ("tile_size", "num_workers")},
    }
    script.reproduce("table1", dataset, tmp_path / "out", **options)
    script.reproduce("table1", dataset, tmp_path / "out", **options)
    assert len(calls) == 1
    record = tmp_path / "out" / "v2-binary-seed42" / "test" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "manifest_sha256": "another's"}))
    script.reproduce("table1", dataset, tmp_path / "out", **options)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "table4"}, "table4: no such table"),
        ({"rows": "v9"}, "--rows v9"),
        ({"tasks": "all"}, "--tasks all"),
        ({"max_epoch": 3}, "--max_epoch"),
        ({"checkpoints": "nowhere"}, "v2-binary.pt: no such weights"),
        ({"seeds": "a"}, "--seeds a"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(arguments, message, script, calls, dataset, tmp_path):
    given = {"table": "table1", "dataset": dataset, "output": tmp_path, "rows": "v2", **arguments}
    with pytest.raises(ValueError, match=message):
        script.reproduce(**given)
    assert calls == []


def test_papers_tables_are_complete(root, script):
    tables = json.loads((root / "scripts" / "paper_tables.json").read_text())
    assert {name: len(rows) for name, rows in tables.items() if name != "source"} == {
        "table1": 12, "table2": 16, "table3": 7,
    }  # fmt: skip
    for name, (rows, _) in script.TABLES.items():
        assert set(rows) <= set(tables[name])
    # sums over a column, added up by hand from the paper
    assert sum(row["dice"] for row in tables["table1"].values()) == pytest.approx(773.12)
    assert sum(row["iou"] for row in tables["table2"].values()) == pytest.approx(990.34)
