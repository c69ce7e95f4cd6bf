"""Names of classes as pathologists' programs write them, as BCSS codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lightmuseg.errors import InputError

from .bcss import CODES

# Polygons of this class are no tissue: all that is in them was annotated. QuPath has the class "Region*".
REGION = "region"
# what messages and ``--classes`` call objects without a class, as QuPath does
UNCLASSIFIED = "Unclassified"
# Names of QuPath's own classes and of common use.
ALIASES = {
    "adipose": "fat",
    "adipose tissue": "fat",
    "background": "other",
    "cancer": "tumor",
    "carcinoma": "tumor",
    "connective tissue": "stroma",
    "debris": "necrosis_or_debris",
    "glass": "other",
    "ignore": "exclude",
    "immune cells": "lymphocytic_infiltrate",
    "immune infiltrate": "lymphocytic_infiltrate",
    "invasive carcinoma": "tumor",
    "lymphocyte": "lymphocytic_infiltrate",
    "lymphocytes": "lymphocytic_infiltrate",
    "necrosis": "necrosis_or_debris",
    "necrotic": "necrosis_or_debris",
    "neoplastic": "tumor",
    "tils": "lymphocytic_infiltrate",
    "tumour": "tumor",
    "white background": "other",
}


def codes_of(
    class_names: Iterable[str], classes: Mapping[str, Sequence[int]], name: str, remedy: str = ""
) -> dict[str, int | None]:
    """The BCSS code of each name of a class; None for an annotated region.

    A name is one of ``classes``, of BCSS, or of common use, in any case, with spaces or underscores, with or without
    QuPath's asterisk; of a class derived from others, such as "Tumor: Positive", the first counts.

    Args:
        class_names: as they were written; "" is an object without a class.
        classes: codes of further names, of which the first counts; none of an annotated region.
        name: of the file, for messages.
        remedy: what else a user can do about a name that is not known, for messages.

    Raises:
        InputError: for names of no known class, all of them.
    """
    found = {class_name: _code_of(class_name, classes) for class_name in class_names}
    unknown = [repr(class_name[:80] or UNCLASSIFIED) for class_name, code in found.items() if code == _NO_CODE]
    if unknown:
        more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise InputError(
            f"{name}: the class {', '.join(sorted(unknown)[:20])}{more} is not known; use Tumor, Stroma, Lymphocytic "
            "infiltrate, Necrosis, Other, Ignore* or another class of BCSS, Region* around what is annotated"
            f"{remedy}."
        )
    return {class_name: None if code == _REGION_CODE else code for class_name, code in found.items()}


def unknown_among(class_names: Iterable[str], classes: Mapping[str, Sequence[int]]) -> set[str]:
    """The names that :func:`codes_of` refuses."""
    return {class_name for class_name in class_names if _code_of(class_name, classes) == _NO_CODE}


def unused_of(classes: Iterable[str], class_names: Iterable[str]) -> list[str]:
    """Those names of one's own by which no object is called.

    >>> unused_of(["Tumr", "Bed", "unclassified"], ["Tumor", "bed: old", ""])
    ['Tumr']
    """
    names = {_plain(class_name or UNCLASSIFIED) for class_name in class_names}
    names |= {name.partition(":")[0].strip() for name in names}
    return [own for own in classes if _plain(own) not in names]


def _code_of(class_name: str, classes: Mapping[str, Sequence[int]]) -> int:
    codes = _KNOWN | {_plain(own): (of_class[0] if of_class else _REGION_CODE) for own, of_class in classes.items()}
    plain = _plain(class_name or UNCLASSIFIED)
    return codes.get(plain, codes.get(plain.partition(":")[0].strip(), _NO_CODE))


def _plain(class_name: str) -> str:
    return " ".join(class_name.replace("_", " ").split()).rstrip("* ").casefold()


_REGION_CODE, _NO_CODE = -1, -2
_KNOWN = {_plain(known): code for known, code in CODES.items()}
_KNOWN |= {_plain(alias): CODES[known] for alias, known in ALIASES.items()} | {REGION: _REGION_CODE}


def parse_classes(text: str) -> dict[str, tuple[int, ...]]:
    """Names of one's own, as ``--classes`` gives them, with the codes that they stand for.

    >>> parse_classes("Tumor bed=tumor, TLS = lymphocytic_infiltrate, box=Region*")
    {'Tumor bed': (1,), 'TLS': (3,), 'box': ()}

    Raises:
        InputError: where it is no such list, or stands for a class that is not known.
    """
    classes: dict[str, tuple[int, ...]] = {}
    for pair in filter(str.strip, text.split(",")):
        own, equals, known = (part.strip() for part in pair.rpartition("="))
        if not (equals and own and known) or _plain(own) in map(_plain, classes):
            raise InputError(f"--classes {pair.strip()[:80]!r}: give each name once, as 'my name=stroma' with commas.")
        code = codes_of([known], {}, "--classes")[known]
        classes[own] = () if code is None else (code,)
    return classes
