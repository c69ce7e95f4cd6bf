"""How good models are on pictures that they have not seen: figures, pictures and docs/reference.md.

python scripts/evaluate_reference.py ROWS DATA OUTPUT [--measures dice,edges] [--only NAME] [--page docs/reference.md]
    [--known docs/benchmarks/reference.json]

ROWS is one JSON list of models or several, with commas between: {"name": "V2", "model": "tumor or a path", "unseen":
["TCGA-S3-AA10"]}, of patients whom this model never saw. Further keys: "seed", rows of one name and several seeds being
one line of a table; "group", the table, whose rows follow one another; "measures", what of --measures this row has
("dice" where it says none); "role", one of tumor, tissue, unet, whose figures are held against the targets;
"training", of cross_validate.py, by which --known gives the figures of models that are not here. DATA is the
folder of pictures and slides (scripts/reference/pictures_at_hand.py says which). Every figure is kept in OUTPUT and
measured once for each model, picture and condition, so a run that was interrupted goes on; after a change of the code
give another OUTPUT. OUTPUT/reference.json has the figures, OUTPUT/*.png the curves, OUTPUT/*.jpg the places. With
--page the tables of that page are written anew, the figures go to benchmarks/reference.json beside it, and the pictures
to images/.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import fire

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.provenance import environment
from lightmuseg.text_files import read_json, write_text

KEYS = {
    "name": str, "model": str, "unseen": list, "seed": int, "group": str, "measures": list, "role": str,
    "training": str,
}  # fmt: skip
ABOUT = ("name", "group", "seed", "role", "training")
ALL = ("dice", "flips", "scales", "overlaps", "robustness", "edges", "glass", "places")


def evaluate(
    rows: str | tuple[str, ...], data: str, output: str, measures: str | tuple[str, ...] = "", only: str = "",
    page: str = "", known: str = "", runtime: str = "openvino", workers: int = 2,
) -> None:  # fmt: skip
    """Measure models and write what was found.

    Args:
        rows: JSON files of the models.
        data: folder of pictures and slides.
        output: folder of figures.
        measures: of dice, flips, scales, overlaps, robustness, edges, glass, places, with commas between; by default
            what each row says.
        only: the rows of this name alone.
        page: Markdown whose tables are written anew.
        known: figures of models that are not here.
        runtime: that runs the networks, as of 'lightmuseg segment'; in float32 they are the same on all machines.
        workers: threads that read.
    """
    from reference import curves, tables
    from reference.evaluation import Evaluation

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    found, drawn = [], []
    asked = _known(_listed(measures), ALL, "--measures")
    elsewhere = figures_of(known) if known else {}
    for row in read_rows(_listed(rows), only):
        about = {key: row[key] for key in ABOUT if key in row}
        key = (row.get("training", ""), *row["unseen"])
        if key in elsewhere and not Path(row["model"]).is_file():
            found.append(about | elsewhere[key])
            continue
        wanted = asked or _known(row.get("measures", ["dice"]), ALL, f"{row['name']}: measures")
        model = Evaluation(row["model"], data, folder / "kept", runtime, workers=workers)
        found.append(about | measured(model, row, wanted))
        picture = f"reference_{re.sub(r'[^a-z0-9]+', '_', row['name'].lower())}.jpg"
        if "places" in wanted and picture not in drawn:
            curves.draw_places(folder / picture, model, row["unseen"])
            drawn.append(picture)
    drawn += curves.draw(folder, found)
    made = {key: value for key, value in environment().items() if key != "command"}
    content = {"made": {**made, "pictures": drawn}, "rows": found}
    write_text(folder / "reference.json", tables.as_json(content))
    if page:
        publish(Path(page), content, folder)
    for name, block in tables.blocks(content).items():
        print(f"{name}\n\n{block}\n")


def figures_of(known: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """What is known of a training and its patients, from the row that has the most figures."""
    rows = [row for row in read_json(known, "name figures that this script has written")["rows"] if "training" in row]
    rows.sort(key=lambda row: sum(map(len, row["patients"].values())))
    return {(row["training"], *row["patients"]): {key: row[key] for key in row if key not in ABOUT} for row in rows}


def measured(model: Any, row: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    """What the model is, and its figures on each patient of the row."""
    figures: dict[str, dict[str, Any]] = {patient: {} for patient in row["unseen"]}
    for measure in (one for one in wanted if one not in ("glass", "places")):
        for patient in figures:
            print(f"{row['name']}, seed {row.get('seed', 0)}: {measure} of {patient}", file=sys.stderr)
            figures[patient] |= model.measure(patient, measure)
    card = model.card
    about = {"architecture": card.architecture, "mpp": card.mpp, "classes": list(card.classes), "tumor": model.tumor}
    glass = {"glass": model.glass()} if "glass" in wanted else {}
    return {"sha256": model.model.sha256, **about, "patients": figures, **glass}


def publish(page: Path, content: dict[str, Any], drawn: Path) -> None:
    """Write the page's tables anew, its figures beside it, and copies of the pictures that lie in ``drawn``."""
    from reference import tables

    if not page.is_file():
        raise InputError(f"{page}: no such page; its text is written by hand, around marks such as {tables.MARKS[0]}.")
    write_text(page, tables.filled_in(page.read_text(encoding="utf-8"), content))
    for name in ("benchmarks", "images"):
        (page.parent / name).mkdir(exist_ok=True)
    write_text(page.parent / "benchmarks" / "reference.json", tables.as_json(content))
    for name in content["made"]["pictures"]:
        shutil.copy(drawn / name, page.parent / "images" / name)


def read_rows(paths: list[str], only: str = "") -> list[dict[str, Any]]:
    """The models that JSON files list.

    Raises:
        InputError: for a list that cannot be used.
    """
    chosen = [row for path in paths for row in _rows_of(path) if only in ("", row["name"])]
    if not chosen:
        raise InputError(f"--only {only}: no such name in {', '.join(paths)}.")
    return chosen


def _rows_of(path: str) -> list[dict[str, Any]]:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; write a JSON list of models, as scripts/evaluate_reference.py says.")
    listed = read_json(path, "write a JSON list of models")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path}: is no list of models.")
    for number, row in enumerate(listed, start=1):
        if not isinstance(row, dict) or {"name", "model", "unseen"} - row.keys():
            raise InputError(f"{path}: model {number} lacks name, model or unseen; add it.")
        _known(row, KEYS, f"{path}: model {number}")
        wrong = [key for key, value in row.items() if not isinstance(value, KEYS[key])]
        if wrong or not row["unseen"]:
            raise InputError(f"{path}: model {number} has a wrong {wrong[0] if wrong else 'unseen'}; correct it.")
    return listed


def _listed(given: str | tuple[str, ...]) -> list[str]:
    """Words with commas between, which a command line may have taken apart already."""
    return [word for word in (given.split(",") if isinstance(given, str) else given) if word]


def _known(names: Any, known: Any, where: str) -> Any:
    for name in names:
        if name not in known:
            raise InputError(f"{where}: {name} is none of {', '.join(known)}.")
    return names


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(evaluate)
