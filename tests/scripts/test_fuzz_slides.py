"""The fuzz of slides: that it sees what it looks for, and that our readers pass it."""

import random
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(root):
    """fuzz_slides and what it imports."""
    sys.path.insert(0, str(root / "scripts" / "fuzz"))
    import fuzz_slides
    import slide_damage
    import slide_formats
    import slide_outcomes

    yield fuzz_slides, slide_damage, slide_formats, slide_outcomes
    sys.path.remove(str(root / "scripts" / "fuzz"))


@pytest.fixture
def tissue():
    return np.random.default_rng(0).integers(100, 200, (256, 256, 3)).astype(np.uint8)


def replaced(tissue, box):
    changed = tissue.copy()
    changed[:128, 128:] = box
    return changed


@pytest.mark.parametrize(
    ("looks", "changed"),
    [
        ("black", lambda tissue: replaced(tissue, 3)),
        ("white", lambda tissue: replaced(tissue, 255)),
        ("another tile's", lambda tissue: replaced(tissue, tissue[128:, :128])),
        ("noise", lambda tissue: replaced(tissue, 255 - tissue[:128, 128:])),
        ("shades", lambda tissue: replaced(tissue, tissue[:128, 128:] + 1)),
    ],
)
def test_pixels_that_are_others_are_told_by_their_looks(looks, changed, script, tissue, tmp_path):
    import tifffile

    *_, outcomes = script
    for name, pixels in (("whole", tissue), ("damaged", changed(tissue))):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, tile=(128, 128), photometric="rgb", metadata=None)
    whole = outcomes.read_whole(tmp_path / "whole.tif")
    assert outcomes.outcome(tmp_path / "damaged.tif", whole) == (outcomes.DIFFERS, looks)
    assert outcomes.outcome(tmp_path / "whole.tif", whole) == (outcomes.SAME, "")


def test_slides_are_whole_and_damage_is_the_same_for_the_same_seed(script, data, tmp_path):
    _, slide_damage, formats, outcomes = script
    for form in formats.FORMATS:
        path = tmp_path / form.name / f"slide{form.suffix}"
        path.parent.mkdir()
        form.make(data, path)
        # of the largest only the tags
        if form.name != "aperio jpeg2000":
            outcomes.read_whole(path)
        made = [tmp_path / name for name in ("one", "other")]
        said = [slide_damage.damage(path, target, random.Random("1 2")) for target in made]
        assert said[0] == said[1]
        assert made[0].read_bytes() == made[1].read_bytes() != path.read_bytes()


@pytest.mark.parametrize("inputs", [210, pytest.param(1000, marks=pytest.mark.nightly)])
def test_no_damage_makes_a_wrong_slide_without_a_word(inputs, script, data, tmp_path):
    fuzz_slides, _, formats, _ = script
    ended = list(fuzz_slides.damaged(list(formats.FORMATS), data, tmp_path, inputs, seed=1, seconds=60))
    assert len(ended) == inputs
    assert [str(one) for one in ended if one.is_fault] == []
