"""report.html: what it says, that it is whole in itself, and that no name of a file gets into its markup."""

import base64
import csv
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from segmented_slides import segmented

from lightmuseg.classes import COLOURS
from lightmuseg.engine.counts import Counts
from lightmuseg.engine.entropy import Entropies
from lightmuseg.outputs import measurements, report
from lightmuseg.outputs.report import NONE, OPACITY, SIDE

MULTI = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")
VOID = {"meta", "img", "br", "rect", "stop"}


class Page(HTMLParser):
    """The elements of a page, their attributes and text; raises where they are not closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text, self.data = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.data.append((dict(attributes)["value"], ""))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "style":
            return
        self.text.append(text)
        if self.open and self.open[-1] == "data":
            self.data[-1] = (self.data[-1][0], text)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split()).replace("\u2013", "-").replace("\u00d7", "x")

    def pictures(self):
        sources = [attributes["src"] for tag, attributes in self.elements if tag == "img"]
        assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for source in sources]


def record_of(slide="/data/slides/A 1.svs", names=MULTI, warnings=(), **more):
    return {
        "lightmuseg": "1.2.3", "commit": "abcdef0123456789", "python": "3.11.7", "packages": {"torch": "2.13.0"},
        "platform": "Machine-1", "processors": 77, "command": ["lightmuseg", "segment"],
        "slide": slide, "slide_sha256": "5" * 64, "reader": "cucim", "level0_size": [80_000, 60_000],
        "level0_mpp": 0.25, "map_size": [40_000, 30_000], "map_mpp": 0.5, "tiles": 1234, "tiles_of_whole_slide": 5000,
        "analysed_share": 0.25, "tissue_share": 0.2, "unread_tiles": 0, "warnings": list(warnings),
        "options": {"output_dir": "/results", "class_names": list(names)},
        "model": {"weights_sha256": "7" * 64, "network": "LightMuSeg", "runtime": "openvino"}, **more,
    }  # fmt: skip


def slide_of(classes, names, counts, entropies, record, options, picture):
    """A map of 50 um/px as large as the picture."""
    class_map = SimpleNamespace(
        height=len(classes), width=classes.shape[1], mpp=50.0, downsample=200.0, class_names=names,
        bands=lambda height: [classes],
    )  # fmt: skip
    return segmented(
        class_map, counts=counts, entropies=entropies, record=record, options=options, picture=picture, step0=200.0
    )


def write(folder, names=MULTI, thumbnail=None, **more):
    counts = Counts([50, *range(100, 100 + 4 * 77, 77)][: len(names) + 1], 4, 2000)
    entropies = Entropies([1000 * n for n in range(len(names) + 1)], [20] * (len(names) + 1))
    thumbnail = np.full((300, 400, 3), (200, 120, 180), np.uint8) if thumbnail is None else thumbnail
    classes = np.zeros(thumbnail.shape[:2], np.uint8)
    classes[:, : thumbnail.shape[1] // 2] = 1
    options = {"class_names": list(names), "mpp": 0.25, "region": None, "tissue_mask": True, "ome": False}
    slide = slide_of(classes, names, counts, entropies, record_of(names=names, **more), options, thumbnail)
    measurements.write(folder / "measurements.csv", slide)
    with patch.object(report, "picture", lambda slide: Image.fromarray(255 - slide.picture)):
        report.write(folder / "report.html", slide)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return Page(text), text


def test_numbers_are_those_of_the_table(tmp_path):
    page, _ = write(tmp_path)
    with open(tmp_path / "measurements.csv", newline="") as file:
        measured = {row["measure"]: row["value"] for row in csv.DictReader(file)}
    said = [value for value, _ in page.data]
    shown = {name for name in measured if name != "unread_area"}
    assert {measured[name] for name in shown} == set(said)
    # what is read is what is meant
    for value, text in page.data:
        number = float(text.rstrip(" %").replace(",", "")) / (100 if text.endswith("%") else 1)
        assert number == pytest.approx(float(value), abs=0.006)
    assert f"Tumor-stroma ratio {100 * float(measured['tumor_stroma_ratio']):.1f} %" in page.words
    assert f"Lymphocytes in stroma {100 * float(measured['lymphocyte_share_of_stroma']):.1f} %" in page.words


def test_binary_model_says_what_it_cannot_measure(tmp_path):
    page, _ = write(tmp_path, ("tumor",))
    assert "Tumor-stroma ratio - needs the model tissue" in page.words
    assert "Lymphocytes in stroma - needs the model tissue" in page.words
    assert "Necrosis" not in page.words
    assert "Necrosis" in write(tmp_path)[0].words


def test_what_was_not_found_is_a_dash(tmp_path):
    picture, classes = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
    slide = slide_of(classes, MULTI, Counts.of(MULTI), Entropies.of(MULTI), record_of(), {}, picture)
    with patch.object(report, "picture", lambda slide: Image.fromarray(slide.picture)):
        report.write(tmp_path / "r.html", slide)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert ("", NONE) in page.data
    assert "Tumor-stroma ratio -" in page.words


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)<!--.svs",
        '"><img src=x onerror=y>.svs',
        "a'b & c {{ 7 * 7 }} {% raw %}.svs",
        "Fälle é.tif",
    ],
)
def test_name_of_a_slide_is_text_and_nothing_else(tmp_path, name):
    plain, _ = write(tmp_path)
    page, _ = write(tmp_path, slide=f"/data/{name}", warnings=[f"scale: {name}"], reader=name)
    assert page.words.count(" ".join(name.split()[:2])) >= 3
    title = [text for text in page.text if name in text]
    assert len(title) >= 3
    extra = [tag for tag, _ in page.elements if tag not in ("h2", "ul", "li", "p")]
    assert extra == [tag for tag, _ in plain.elements if tag not in ("h2", "ul", "li", "p")]
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)


def test_name_that_is_no_text_is_printable(tmp_path):
    page, _ = write(tmp_path, slide="/data/a\udcff.svs")
    assert "a\\udcff.svs" in page.words


def test_nothing_outside_the_page_is_referred_to(tmp_path):
    page, text = write(tmp_path)
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base", "a", "form"} == set()
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "xlink:href", "action"):
            assert attributes.get(key, "data:").startswith("data:")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert re.findall(r"url\((.*?)\)", text) == ["#ramp"]
    policies = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_warnings_stand_before_everything_that_was_measured(tmp_path):
    page, _ = write(tmp_path, warnings=["focus: 3 of 8 places are blurred.", "tissue: little."])
    assert "2 warnings Focus: 3 of 8 places are blurred. Tissue: little." in page.words
    assert page.words.index("2 warnings") < page.words.index("Areas")
    assert "No warnings" not in page.words
    assert "No warnings" in write(tmp_path)[0].words


def test_what_the_result_rests_on_is_said(tmp_path):
    page, _ = write(tmp_path, unread_tiles=3)
    for words in (
        "5" * 64, "7" * 64, "LightMuSeg 1.2.3 (abcdef012345), Python 3.11.7, torch 2.13.0", "runtime openvino",
        "20.0 x 15.0 mm", "80,000 x 60,000 pixels of 0.25 µm", "1,234 of 5,000 tiles", "Could not be read",
        "mpp 0.25; tissue mask yes; no ome", "Research use only. Not for diagnosis.",
    ):  # fmt: skip
        assert words in page.words


def test_page_holds_no_times_machines_and_folders(tmp_path):
    _, text = write(tmp_path, seconds={"segmenting": 123.456})
    once = write(tmp_path, slide="/elsewhere/A 1.svs", platform="Machine-2", processors=3, command=["x"])[1]
    assert text == once
    for words in ("/data/", "/results", "123.4", "Machine", str(tmp_path)):
        assert words not in text


def test_pictures_are_small_and_show_the_classes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    page, text = write(tmp_path, thumbnail=noise)
    assert [max(picture.shape) for picture in page.pictures()] == [SIDE] * 3
    assert len(text) < 8_000_000
    page, _ = write(tmp_path)
    slide, classes, uncertainty = (picture.astype(int) for picture in page.pictures())
    assert np.abs(slide - (200, 120, 180)).max() < 6
    assert np.abs(uncertainty - (55, 135, 75)).max() < 6
    grey = 255 - (255 - (0.299 * 200 + 0.587 * 120 + 0.114 * 180)) / 2
    assert np.abs(classes[:, 220:] - grey).max() < 6
    tumor = OPACITY * np.array(COLOURS["tumor"]) + (1 - OPACITY) * grey
    assert np.abs(classes[:, :180] - tumor).max() < 8


@pytest.mark.parametrize(("shape", "share", "text"), [((300, 400), "10.00", "2 mm"), ((400, 150), "13.33", "1 mm")])
def test_scale_is_a_share_of_the_picture(tmp_path, shape, share, text):
    page, _ = write(tmp_path, thumbnail=np.full((*shape, 3), 200, np.uint8))
    # 50 um to a pixel
    scales = [attributes["style"] for _, attributes in page.elements if attributes.get("class") == "scale"]
    assert scales == [f"width: {share}%"] * 3
    assert page.text.count(text) == 3


def test_the_model_its_limits_and_no_markup_of_them_are_shown(tmp_path):
    limits = "One patient's <b>lymphocytes</b>: expect & check."
    model = {"weights_sha256": "7" * 64, "network": "LightMuSeg", "name": "tissue", "limits": limits, "tile_size": 512}
    page, text = write(tmp_path, model=model)
    assert f"Model tissue Limits of the model {limits} Network LightMuSeg; tile size 512 Map" in page.words
    assert "<b>" not in text
