"""The picture of the architecture is the one that the imports draw, and they go round in no circle."""

import re
import runpy
from graphlib import CycleError
from xml.etree import ElementTree

import pytest

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def script(root):
    """The names of the script."""
    return runpy.run_path(str(root / "scripts" / "draw_architecture.py"))


@pytest.fixture
def draw(script, tmp_path):
    """Draw a package of files with the given texts."""

    def drawn(**files):
        package = tmp_path / "lightmuseg"
        for name, text in {"__init__": '"""The package."""\n', **files}.items():
            path = package / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "train.json").write_text('{"_target_": "lightmuseg.top.Network", "x": "lightmuseg.no_room"}')
        return ElementTree.fromstring(script["draw"](package, tmp_path))

    return drawn


def heights(picture):
    return {one.text: int(one.get("y")) for one in picture.iter(f"{SVG}text") if one.get("class") == "name"}


def arrows(picture):
    return sum(path.get("marker-end") is not None for path in picture.iter(f"{SVG}path"))


def test_the_picture_of_the_documentation_is_drawn_from_the_imports(script, root):
    drawn = script["draw"](root / "lightmuseg", root / "bundle" / "configs")
    shown = (root / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == shown, "run: python scripts/draw_architecture.py"


def test_a_room_lies_below_all_that_import_it_and_implied_arrows_are_left_out(draw):
    picture = draw(
        top='"""The top."""\nimport lightmuseg.middle\nfrom lightmuseg import bottom\n',
        middle__in____init__='"""In between & more."""\n',
        middle__in__one="def late():\n    from ..bottom import x\n",
        bottom='"""The bottom."""\n',
    )
    y = heights(picture)
    assert list(y) == ["bottom.py", "bundle/configs", "middle", "top.py"]
    assert y["bundle/configs"] < y["top.py"] < y["middle"] < y["bottom.py"]
    # configs to top, top to middle, middle to bottom
    assert arrows(picture) == 3
    assert "In between & more." in [one.text for one in picture.iter(f"{SVG}text")]


@pytest.mark.parametrize("files", [
    # of modules in one room
    {"a__in____init__": "", "a__in__one": "from .two import x\n", "a__in__two": "from . import one\n"},
    # of rooms, but of no modules
    {"a__in____init__": "", "a__in__one": "import lightmuseg.b.one\n", "a__in__two": "",
     "b__in____init__": "", "b__in__one": "", "b__in__two": "from lightmuseg.a import two\n"},
])  # fmt: skip
def test_circles_are_refused(draw, files):
    with pytest.raises(CycleError):
        draw(**files)


def test_the_page_says_of_every_room_what_is_there(script, root):
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {name.split(".")[1] for name in script["modules_of"](root / "lightmuseg") if "." in name}
    table = text.partition("## What is where")[2].partition("\n\nBeside")[0]
    named = {room for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for room in re.findall(r"`(\w+)`", row)}
    assert named == rooms
