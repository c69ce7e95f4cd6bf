import os

import pytest

from lightmuseg.cohort.cohort_slide import CohortSlide
from lightmuseg.cohort.cohort_state import CohortState
from lightmuseg.cohort.tally import Tally


@pytest.fixture
def state(tmp_path):
    return CohortState(tmp_path / "out")


def finish(state, slide, record='{"slide": "x", "files": {}}'):
    state.results(slide).mkdir(parents=True, exist_ok=True)
    (state.results(slide) / "run.json").write_text(record)


def figures(tally):
    return tally.done, tally.bytes_ended, tally.failed, [slide.name for slide in tally.pending]


def test_the_folder_says_what_is_done_and_what_failed_since(state, tmp_path):
    slides = [CohortSlide(tmp_path / f"{name}.svs", name, size=10**n) for n, name in enumerate("abcde")]
    slides[4] = CohortSlide(tmp_path / "e.svs", "e", fault="cannot be tried", size=10_000)
    finish(state, slides[0])
    state.fail(slides[1], "before", "")
    tally = Tally(slides, state)
    fault = {str(tmp_path / "e.svs"): "cannot be tried"}
    assert figures(tally) == (1, 10_001, fault, ["b", "c", "d"])
    assert (tally.slides_total, tally.bytes_total) == (5, 11_111)
    state.fail(slides[2], "now", "")
    finish(state, slides[3])
    tally.look()
    assert figures(tally) == (2, 11_101, {**fault, "c": "now"}, ["b"])
    # as another command may do, which started before
    state.fail(slides[1], "again", "")
    os.utime(state._note(slides[1]), ns=(1, 1))
    tally.look()
    assert figures(tally) == (2, 11_111, {**fault, "c": "now", "b": "again"}, [])


def test_broken_results_are_looked_at_again_only_when_others_are_there(state, tmp_path, monkeypatch):
    (slide,) = slides = [CohortSlide(tmp_path / "a.svs", "a")]
    finish(state, slide, "{")
    looks = []
    monkeypatch.setattr(state, "is_done", lambda slide: looks.append(1) or CohortState.is_done(state, slide))
    tally = Tally(slides, state)
    for _ in range(3):
        tally.look()
    assert (tally.done, len(looks)) == (0, 1)
    (state.results(slide) / "run.json").unlink()
    finish(state, slide)
    tally.look()
    assert (tally.done, tally.pending) == (1, [])
