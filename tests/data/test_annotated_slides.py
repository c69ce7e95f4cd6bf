"""Slides are matched with their annotations and with their patients."""

import logging
import os
from pathlib import Path

import pytest

from lightmuseg.data.annotated_slides import find_annotated
from lightmuseg.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """A function: make empty files in a folder, and return it."""

    def make(name, *files):
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("slide", "annotation"),
    [
        ("a.svs", "a.geojson"), ("a.svs", "a.svs.geojson"), ("a.svs", "a.json"), ("a.svs", "deep/er/a.xml"),
        ("a.svs", "a.png"), ("a.svs", "a.tif"), ("a.svs", "a_mask.png"), ("a.ome.tif", "a.geojson"),
        ("a.ome.tif", "a.ome.geojson"), ("deep/a.png", "a.png"), ("a.jpg", "a_mask.tiff"), ("é ü.tif", "é ü.GEOJSON"),
    ],
)  # fmt: skip
def test_annotation_has_the_name_of_its_slide(slide, annotation, folder):
    slides, annotations = folder("slides", slide), folder("annotations", annotation, "other.geojson", ".a.geojson")
    (found,) = find_annotated(slides, annotations)
    assert (found.slide, found.annotation) == (slides / slide, annotations / annotation)


@pytest.mark.parametrize("annotation", ["a_mask.png", "a.geojson", "a.png.geojson", "a.xml"])
def test_both_may_lie_in_one_folder(annotation, folder):
    both = folder("both", "a.png", annotation, "b.png")
    (found,) = find_annotated(both, both)
    assert (found.slide, found.annotation) == (both / "a.png", both / annotation)


@pytest.mark.parametrize("annotation", ["a.png", "a_mask.tif"])
def test_picture_with_the_name_of_a_slide_is_no_slide(annotation, folder):
    both = folder("both", "a.svs", annotation)
    (found,) = find_annotated(both, both)
    assert (found.slide, found.annotation) == (both / "a.svs", both / annotation)
    (found,) = find_annotated(both, folder("annotations", "a.geojson"))
    assert (found.slide.name, found.annotation.name) == ("a.svs", "a.geojson")


def test_one_folder_may_be_named_in_two_ways(folder):
    both = folder("both", "a.png", "a.xml")
    (both.parent / "link").symlink_to(both)
    for other in (both / ".." / "both", both.parent / "link"):
        (found,) = find_annotated(both, other)
        assert found.annotation == other / "a.xml"


def test_links_to_folders_are_followed_and_end(folder):
    slides, annotations = folder("slides", "a.svs", "b.svs"), folder("annotations", "a.xml")
    (annotations / "elsewhere").symlink_to(folder("elsewhere", "b.xml"))
    (annotations / "above").symlink_to(annotations)
    assert [one.name for one in find_annotated(slides, annotations)] == ["a", "b"]


def test_folder_of_annotations_that_cannot_be_looked_into_is_named(folder, monkeypatch):
    def look(path, scandir=os.scandir):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    slides, annotations = folder("slides", "a.svs"), folder("annotations", "a.xml", "deep/b.xml")
    monkeypatch.setattr(os, "scandir", look)
    with pytest.raises(PermissionError, match="deep"):
        find_annotated(slides, annotations)


def test_what_has_no_counterpart_is_reported(folder, caplog):
    slides = folder("slides", "a.svs", "b.svs", "c.svs")
    with caplog.at_level(logging.WARNING):
        find_annotated(slides, folder("annotations", "a.geojson", "x.xml"))
    assert "without an annotation and left out: b.svs, c.svs (2 in all)" in caplog.text
    assert "of no slide and left out: x.xml (1 in all)" in caplog.text


@pytest.mark.parametrize(
    ("slides", "annotations", "fault"),
    [
        ([], ["a.geojson"], "holds no slides"),
        (["a.svs"], [], "no such folder; name it with --annotations"),
        (["a.svs"], ["b.geojson"], "it would be a.geojson, a.xml, a.json or a_mask.png"),
        (["a.svs"], ["a.geojson", "a.xml"], "has 2 annotations"),
        (["a.svs"], ["a.geojson", "sub/a.geojson"], "has 2 annotations"),
        (["a.svs", "a.tif"], ["a.geojson"], "has the same name"),
        (["a.jpg", "a.png"], ["a.geojson"], "A mask beside its picture is a_mask.png"),
        (["1/a.svs", "2/a.svs"], ["a.geojson"], "has the same name"),
    ],
)
def test_what_fits_not_or_twice_is_refused_in_a_line(slides, annotations, fault, folder, tmp_path):
    (tmp_path / "slides").mkdir()
    folder("slides", *slides)
    with pytest.raises(InputError, match=fault) as error:
        find_annotated(tmp_path / "slides", folder("annotations", *annotations))
    assert "\n" not in str(error.value)


def test_patient_is_the_barcode_or_the_slide(folder):
    names = ("TCGA-A2-A0D2-01Z-00-DX1.5C4F.svs", "TCGA-A2-A0D2-DX2.svs", "case 7.svs")
    slides = folder("slides", *names)
    found = find_annotated(slides, folder("annotations", *(name.replace(".svs", ".geojson") for name in names)))
    assert [one.patient for one in found] == ["TCGA-A2-A0D2", "TCGA-A2-A0D2", "case 7"]


def test_barcode_may_be_in_small_letters(folder):
    slides = folder("slides", "tcga-a2-a0d2-dx1.svs", "TCGA-A2-A0D2-dx2.svs")
    found = find_annotated(slides, folder("n", "tcga-a2-a0d2-dx1.xml", "TCGA-A2-A0D2-dx2.xml"))
    assert {one.patient for one in found} == {"TCGA-A2-A0D2"}


@pytest.mark.parametrize(("names", "said"), [("ab", True), ("a", False), (["TCGA-A2-A0D2", "TCGA-A2-A0D3"], False)])
def test_slides_that_are_taken_for_patients_are_reported(names, said, folder, caplog):
    find_annotated(folder("s", *(f"{one}.svs" for one in names)), folder("n", *(f"{one}.xml" for one in names)))
    assert ("2 slides are taken for as many patients; where" in caplog.text) is said


def test_umlaut_is_one_in_one_character_or_in_two(folder, tmp_path):
    one, two = "\u00fc", "u\u0308"
    (tmp_path / "p.csv").write_text(f"slide,patient\n{one} 1.svs,P\n{two} 2,P", encoding="utf-8")
    slides = folder("s", f"{two} 1.svs", f"{one} 2.svs")
    found = find_annotated(slides, folder("n", f"{one} 1.xml", f"{two} 2_mask.png"), tmp_path / "p.csv")
    assert [path.annotation.suffix for path in found] == [".xml", ".png"]


@pytest.mark.parametrize(
    "table",
    [
        "slide,patient\na.svs,P 1\nb,P 1\n",
        "Patient;Slide;x\r\nP 1;a;3\r\n\r\nP 1;b.svs;4\r\n",
        '\ufeffslide\tpatient\n"C:\\slides\\a.svs"\tP 1\nfolder/b.svs\tP 1\nelse\tP 2',
    ],
)
def test_table_says_the_patients(table, folder, tmp_path):
    (tmp_path / "p.csv").write_text(table, encoding="utf-8", newline="")
    found = find_annotated(folder("s", "a.svs", "b.svs"), folder("n", "a.xml", "b.xml"), tmp_path / "p.csv")
    assert [one.patient for one in found] == ["P 1", "P 1"]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("slide,patient\na.svs,1\n", "does not name the patient of b.svs"),
        ("slide,patient\na.svs,1\nb,2\nb.svs,3\n", "names two patients of b.svs"),
        ("slide,patient\na.svs,1\nb,2\nb,3\n", "line 4: b is of 2 above and of 3 here"),
        ("slide,patient\na.svs,\n", "line 2: lacks"),
        ("name,patient\na,b\n", "needs the columns slide and patient, has name, patient"),
        ("", "has none"),
        ("slide,patient,Patient\na,1,2\nb,1,3", "has slide, patient, patient; name each once"),
        ('slide,patient\n"a', "lacks"),
        ("slide,patient\n" + "a" * 200_000 + ",b", "is no table"),
    ],
)
def test_table_that_says_no_patient_is_refused_in_a_line(table, fault, folder, tmp_path):
    (tmp_path / "p.csv").write_text(table)
    with pytest.raises(InputError, match=fault) as error:
        find_annotated(folder("s", "a.svs", "b.svs"), folder("n", "a.xml", "b.xml"), tmp_path / "p.csv")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
