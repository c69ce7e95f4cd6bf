"""The results of a slide as one page to read and print."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lightmuseg.classes import UNREAD_COLOUR, palette_of
from lightmuseg.pages import page_template
from lightmuseg.pictures import STRIPE_COLOUR, overlay, pale_grey
from lightmuseg.text_files import write_text

from .legend import length_text, round_length
from .measurements import RATIOS, measured
from .segmented import SegmentedSlide
from .uncertainty import picture, shown_colours

TEMPLATE = "report.html.jinja"
# Longer side of the pictures in pixels, 350 to an inch of a printed column, and the quality of their JPEG.
SIDE, QUALITY = 1200, 85
# Of the classes over the slide, which is grey below them.
OPACITY = 0.6
# What is measured of each class.
KINDS = ("area", "share", "uncertainty")
# What a record says of the model that has a line of its own.
SHOWN_APART = ("weights_sha256", "network", "name", "limits")
# What is shown for a number that is not there.
NONE = "\u2013"


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write an HTML page that holds all it shows and prints on A4 and on Letter.

    There are no times, no machine and no folders in it, so that a run that was interrupted gives the same bytes.
    """
    filters = {"number": _number, "decimals": _decimals, "percent": _percent, "words": _words}
    template = page_template(__package__, TEMPLATE, filters)
    record, names = slide.record, slide.class_map.class_names
    rows = {row["measure"]: row for row in measured(slide)}
    values = {measure: row["value"] for measure, row in rows.items()}
    palette = dict(zip(["other_tissue", *names], palette_of(names)))
    height, width = slide.picture.shape[:2]
    width_um = width * slide.um_per_pixel
    bar_um = round_length(width_um / 5)
    text = template.render(
        slide=Path(record["slide"]).name,
        record=record,
        size_mm=[side * record["level0_mpp"] / 1000 for side in record["level0_size"]],
        values=values,
        areas=[
            {"name": name, "colour": _hex(palette[name]), **{kind: values[f"{name}_{kind}"] for kind in KINDS}}
            for name in [*names, "other_tissue"]
        ],
        unread_colours=[_hex(UNREAD_COLOUR), _hex(STRIPE_COLOUR)],
        ratios=[rows.get(measure) for measure, *_ in RATIOS],
        thumbnail=_data_uri(Image.fromarray(slide.picture)),
        overlay=_data_uri(overlay(pale_grey(slide.picture), slide.classes, names, SIDE, OPACITY, striped=True)),
        uncertainty=_data_uri(picture(slide)),
        upright=height >= width,
        bar={"share": f"{100 * bar_um / width_um:.2f}", "text": length_text(bar_um).replace("um", "\u00b5m")},
        ramp=[_hex(colour) for colour in shown_colours(9)],
        network=_listed({name: value for name, value in record["model"].items() if name not in SHOWN_APART}),
        options=_listed(slide.options),
    )
    write_text(path, text)


def _data_uri(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
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


def _decimals(value: str) -> str:
    return f"{float(value):.2f}" if value else NONE


def _percent(value: str) -> str:
    return f"{100 * float(value):.1f} %" if value else NONE


def _words(name: str) -> str:
    """A class or an option as it is read: first letter large, no underscores."""
    return (name[:1].upper() + name[1:]).replace("_", " ")


def _listed(values: Mapping[str, Any]) -> str:
    """Names and plain values in one line; what is not set is left out.

    >>> _listed({"tile_size": 512, "tissue_mask": True, "region": None})
    'tile size 512; tissue mask yes'
    """
    words = []
    for name, value in values.items():
        if value is None:
            continue
        name = name.replace("_", " ")
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        words.append(f"no {name}" if value is False else f"{name} {'yes' if value is True else value}")
    return "; ".join(words)
