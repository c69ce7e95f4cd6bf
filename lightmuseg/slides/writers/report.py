"""The results of a slide as one page to read and print."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from lightmuseg.data.pictures import UNANNOTATED, palette_of

from .legend import length_text, round_length
from .measurements import RATIOS
from .uncertainty import colours

TEMPLATE = "report.html.jinja"
# Longer side of the pictures in pixels, enough for 300 to an inch of a printed column, and the quality of their JPEG.
OVERLAY_SIDE, UNCERTAINTY_SIDE, QUALITY = 1600, 1000, 88
# What is shown for a number that is not there.
NONE = "\u2013"


def write_report(
    path: Path,
    record: Mapping[str, Any],
    options: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    overlay: Image.Image,
    uncertainty: Image.Image,
    um_per_pixel: float,
) -> None:
    """Write an HTML page that holds all it shows and prints on A4 and on Letter.

    There are no times, no machine and no folders in it, so that a run that was interrupted gives the same bytes.

    Args:
        path: such as ``report.html``.
        record: what ``run.json`` says.
        options: those of the run that decide what the results are.
        rows: of ``measurements.csv``.
        overlay, uncertainty: the pictures without their legends, of one size.
        um_per_pixel: of both.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=_number, percent=_percent, words=_words)
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    names = list(record["options"]["class_names"])
    values = {row["measure"]: row["value"] for row in rows}
    palette = dict(zip(["other_tissue", *names], palette_of(names)))
    width_um = overlay.width * um_per_pixel
    bar_um = round_length(width_um / 5)
    text = template.render(
        slide=_printable(Path(record["slide"]).name),
        record=record,
        size_mm=[side * record["level0_mpp"] / 1000 for side in record["level0_size"]],
        values=values,
        classes=[
            {"name": name, "colour": _hex(palette[name]), **{kind: values[f"{name}_{kind}"] for kind in KINDS}}
            for name in [*names, "other_tissue"]
        ],
        unread_colour=_hex(UNANNOTATED),
        ratios=[_ratio(rows, measure) for measure, *_ in RATIOS],
        overlay=_data_uri(overlay, OVERLAY_SIDE),
        uncertainty=_data_uri(uncertainty, UNCERTAINTY_SIDE),
        bar={"share": f"{100 * bar_um / width_um:.2f}", "text": length_text(bar_um).replace("um", "\u00b5m")},
        ramp=[_hex(colour) for colour in colours(np.linspace(0, 1, 9)).round().astype(int)],
        options={name: _plain(value) for name, value in options.items()},
    )
    path.write_text(text, encoding="utf-8")


KINDS = ("area", "share", "uncertainty")


def _ratio(rows: Sequence[Mapping[str, str]], measure: str) -> Mapping[str, str] | None:
    """The row of a ratio; None where the model has not its classes."""
    return next((row for row in rows if row["measure"] == measure), None)


def _data_uri(picture: Image.Image, side: int) -> str:
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _hex(colour: Sequence[int]) -> str:
    return "#" + bytes(int(value) for value in colour).hex()


def _number(value: str | float) -> str:
    """With as many digits as are worth reading; a dash for nothing.

    >>> [_number(value) for value in (1234.5, 12.345, "1.2345", 0.01234, "")]
    ['1,234', '12.3', '1.23', '0.012', '\u2013']
    """
    if value == "":
        return NONE
    size = abs(float(value))
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{float(value):,.{digits}f}"


def _percent(value: str) -> str:
    return f"{100 * float(value):.1f} %" if value else NONE


def _words(name: str) -> str:
    """A class or an option as it is read: first letter large, no underscores."""
    return (name[:1].upper() + name[1:]).replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return _printable({None: NONE, True: "yes", False: "no"}.get(value, str(value)) if _is_word(value) else str(value))


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _printable(text: str) -> str:
    """Bytes of a file's name that are no text are shown by their number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
