"""How much of each class a prepared dataset holds, by split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightmuseg.classes import COLOURS
from lightmuseg.errors import InputError
from lightmuseg.files import write_whole
from lightmuseg.text_files import write_csv

from .bcss import CODE_NAMES, CODES, UNANNOTATED
from .split import SPLITS
from .tile_manifest import read_manifest


def class_shares(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """Pixels of each BCSS code in each split, counted over tiles: what neighbours have in common counts twice.

    Args:
        dataset_dir: what ``lightmuseg prepare`` wrote.

    Returns:
        A row with the keys split, tiles, patients, code, name, pixels and share for each split that has tiles and
        each code of the dataset, in order; ``share`` is that of the split's pixels.

    Raises:
        InputError: where there is no manifest.
    """
    tiles = read_manifest(dataset_dir)["tiles"]
    codes = sorted({int(code) for tile in tiles for code in tile["code_pixels"]})
    rows = []
    for split in SPLITS:
        of_split = [tile for tile in tiles if tile["split"] == split]
        patients = len({tile["patient"] for tile in of_split})
        total = sum(sum(tile["code_pixels"].values()) for tile in of_split)
        for code in codes if of_split else ():
            pixels = sum(tile["code_pixels"].get(str(code), 0) for tile in of_split)
            rows.append(
                {"split": split, "tiles": len(of_split), "patients": patients, "code": code, "name": CODE_NAMES[code],
                 "pixels": pixels, "share": pixels / total}
            )  # fmt: skip
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows of :func:`class_shares` as text: a line for each code, two columns for each split."""
    splits = {row["split"]: row for row in rows}
    lines = [["", *(word for split in splits for word in (split, ""))]]
    for name in ("tiles", "patients"):
        lines.append([name, *(word for row in splits.values() for word in (f"{row[name]:,}", ""))])
    for code in dict.fromkeys(row["code"] for row in rows):
        of_code = [row for row in rows if row["code"] == code]
        words = [word for row in of_code for word in (f"{row['pixels']:,}", f"{row['share']:.2%}")]
        lines.append([f"{code:2d} {CODE_NAMES[code]}", *words])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))]).rstrip() for line in lines
    )


def write_shares(rows: list[dict[str, Any]], output: Path) -> None:
    """Write rows of :func:`class_shares` as ``class_shares.csv`` and ``class_shares.png`` in ``output``.

    Raises:
        InputError: where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError("plots need matplotlib; install it with: pip install 'lightmuseg[plots]'") from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    draw(rows, figure)
    write_csv(output / "class_shares.csv", rows)
    write_whole(output / "class_shares.png", lambda temporary: figure.savefig(temporary, dpi=150))


def draw(rows: list[dict[str, Any]], figure: Any) -> None:
    """One bar for each split, the codes stacked from the left."""
    from matplotlib import colormaps

    # the paper's colours for its classes, greys for what is no annotation
    colours = dict(enumerate(colormaps["tab20b"].colors + colormaps["Set2"].colors)) | dict(
        zip(UNANNOTATED, ("0.9", "0.75"))
    )
    colours |= {CODES[name]: tuple(part / 255 for part in colour) for name, colour in COLOURS.items() if name in CODES}
    axes = figure.subplots()
    splits = {row["split"]: row for row in rows}
    names = [f"{split}\n{row['tiles']:,} tiles\n{row['patients']:,} patients" for split, row in splits.items()]
    left = [0.0] * len(names)
    for code in dict.fromkeys(row["code"] for row in rows):
        shares = [100 * row["share"] for row in rows if row["code"] == code]
        axes.barh(names, shares, left=left, color=colours[code], label=f"{code} {CODE_NAMES[code]}", height=0.7)
        left = [start + share for start, share in zip(left, shares)]
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="share of the tiles' pixels, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
