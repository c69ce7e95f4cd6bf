"""Slides in a folder, the annotation of each in another, and whose they are."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightmuseg.areas.annotations import POLYGONS
from lightmuseg.errors import InputError, first_line
from lightmuseg.text_files import text_of
from lightmuseg.wsi.slide_search import PICTURES, find_slides

logger = logging.getLogger(__name__)

MASKS = (".png", ".tif", ".tiff")
# what may stand between a slide's name and the ending of its mask
MASK_MARK = "_mask"
# of a table of patients
MAX_BYTES = 50_000_000
_BARCODE = re.compile(r"TCGA-\w\w-\w{4}", re.IGNORECASE)


@dataclass(frozen=True)
class AnnotatedSlide:
    """A slide with its annotation: polygons, or a mask where ``annotation`` ends as one of ``MASKS``."""

    name: str
    patient: str
    slide: Path
    annotation: Path


def find_annotated(
    slides: Path, annotations: Path, patients: Path | None = None, skipped: Path | None = None
) -> list[AnnotatedSlide]:
    """The slides of a folder that have an annotation, by name; the others are reported in a warning.

    The annotation of ``slide.svs`` is ``slide.geojson``, ``slide.svs.geojson``, ``slide.json``, ``slide.xml``, or a
    mask ``slide.png`` or ``slide_mask.png`` (or TIFF). Its patient is said by a table; else it is the first twelve
    characters of a name of TCGA, and of any other the name.

    Args:
        slides: folder of slides or pictures, at any depth.
        annotations: folder of annotations, at any depth; may be the same.
        patients: a table with the columns slide and patient.
        skipped: a folder below them that is not looked into.

    Raises:
        InputError: where a folder or table cannot be used, nothing fits, or more than one file does.
    """
    for folder, option in ((slides, "--slides"), (annotations, "--annotations")):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name it with {option}.")
    files = _files_of(annotations, skipped)
    slide_of: dict[str, Path] = {}
    for path in _without_masks(sorted(find_slides(slides, skipped, pictures=True, unseen=_refuse))):
        name = _name_of(path)
        if name in slide_of:
            raise InputError(
                f"{path}: {slide_of[name]} has the same name; rename one. A mask beside its picture is {name}_mask.png."
            )
        slide_of[name] = path
    if not slide_of:
        raise InputError(f"{slides}: holds no slides or pictures; name their folder with --slides.")
    annotation_of = {name: _annotation_of(name, path, files) for name, path in slide_of.items()}
    found = {name: path for name, path in annotation_of.items() if path is not None}
    if not found:
        first = next(iter(slide_of))
        raise InputError(
            f"{annotations}: holds no annotation of any slide; of {slide_of[first].name} it would be {first}.geojson, "
            f"{first}.xml, {first}.json or {first}_mask.png."
        )
    _say(f"{slides}: without an annotation and left out", [slide_of[name].name for name in slide_of.keys() - found])
    used = {path.resolve() for path in (*found.values(), *slide_of.values())}
    others = [path.name for paths in files.values() for path in paths if path.resolve() not in used]
    _say(f"{annotations}: of no slide and left out", others)
    patient_of = _patients_of(found, slide_of, patients)
    return [AnnotatedSlide(name, patient_of[name], slide_of[name], path) for name, path in sorted(found.items())]


def _say(what: str, names: Sequence[str]) -> None:
    if names:
        more = ", ..." if len(names) > 5 else ""
        logger.warning(f"{what}: {', '.join(sorted(names)[:5])}{more} ({len(names)} in all).")


def _refuse(_: Path, line: str) -> None:
    raise InputError(line)


def _refuse_folder(error: OSError) -> None:
    raise error


def _files_of(folder: Path, skipped: Path | None) -> dict[str, list[Path]]:
    """What may be annotations, by name without ending; links to folders are followed, into each folder once."""
    found: dict[str, list[Path]] = {}
    seen = {skipped.resolve()} - {folder.resolve()} if skipped is not None else set()
    for inner, folders, names in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        if (place := Path(inner).resolve()) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for path in (Path(inner, name) for name in sorted(names) if name[0] != "."):
            # no pipes, which might never end
            if path.suffix.lower() in (*POLYGONS, *MASKS) and path.is_file():
                found.setdefault(_composed(path.stem), []).append(path)
    return found


def _without_masks(slides: Sequence[Path]) -> Iterator[Path]:
    """Slides but the masks of others beside them, and pictures of their names, which are thumbnails or masks."""
    names = {_name_of(path) for path in slides}
    others = {_name_of(path) for path in slides if path.suffix.lower() not in PICTURES}
    for path in slides:
        mask_of = _composed(path.stem).removesuffix(MASK_MARK)
        is_mask = mask_of != _composed(path.stem) and mask_of in names and path.suffix.lower() in MASKS
        is_beside = path.suffix.lower() in PICTURES and _name_of(path) in others
        if not (is_mask or is_beside):
            yield path


def _name_of(slide: Path) -> str:
    """A slide's name without its ending; a folder's name has none."""
    name = slide.name if slide.is_dir() else slide.stem
    return _composed(name.removesuffix(".ome"))


def _composed(name: str) -> str:
    """A name as most systems write it: macOS may write an umlaut as two characters, and it is the same name."""
    return unicodedata.normalize("NFC", name)


def _annotation_of(name: str, slide: Path, files: Mapping[str, Sequence[Path]]) -> Path | None:
    stems = dict.fromkeys((name, _composed(slide.name), _composed(slide.stem), f"{name}{MASK_MARK}"))
    found = [path for stem in stems for path in files.get(stem, ()) if path.resolve() != slide.resolve()]
    if len(found) > 1:
        names = ", ".join(str(path) for path in found[:3])
        raise InputError(f"{slide}: has {len(found)} annotations ({names}); take all but one away.")
    return found[0] if found else None


def _patients_of(names: Mapping[str, Path], slide_of: Mapping[str, Path], table: Path | None) -> dict[str, str]:
    if table is None:
        barcodes = {name: barcode[0].upper() for name in names if (barcode := _BARCODE.match(name))}
        if len(names) - len(barcodes) > 1:
            logger.warning(
                f"{len(names) - len(barcodes)} slides are taken for as many patients; where several are of one, say so "
                "with --patients, or a patient may be in two splits."
            )
        return {name: barcodes.get(name, name) for name in names}
    said = _read_patients(table)
    found = {}
    for name in names:
        spellings = (_composed(slide_of[name].name), name)
        patients = {said[spelling] for spelling in spellings if spelling in said}
        if len(patients) != 1:
            what = "names two patients of" if patients else "does not name the patient of"
            raise InputError(f"{table}: {what} {slide_of[name].name}; give it one line with slide and patient.")
        found[name] = patients.pop()
    return found


def _read_patients(path: Path) -> dict[str, str]:
    """Patients by the names of slides as a table has them, without folders."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a table with the columns slide and patient with --patients.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path}: {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; is it the table of patients?")
    try:
        text = text_of(path.read_bytes())
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no table ({first_line(error)}); export it again as CSV.") from error
    columns = [name.casefold() for name in rows[0]] if rows else []
    if not columns.count("slide") == columns.count("patient") == 1:
        found_columns = ", ".join(columns)[:200] or "none"
        raise InputError(f"{path}: needs the columns slide and patient, has {found_columns}; name each once.")
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        cells = dict(zip(columns, row))
        slide, patient = (cells.get(name, "") for name in ("slide", "patient"))
        if not any(row):
            continue
        slide = _composed(slide.replace("\\", "/").rpartition("/")[2])
        if not (slide and patient):
            raise InputError(f"{path}, line {number}: lacks the slide or the patient; fill it in, or delete the line.")
        if found.setdefault(slide, patient) != patient:
            raise InputError(f"{path}, line {number}: {slide} is of {found[slide]} above and of {patient} here.")
    return found
