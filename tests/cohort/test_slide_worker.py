import json

import pytest

import lightmuseg.cohort.slide_worker
from lightmuseg.cohort.cohort_slide import CohortSlide
from lightmuseg.cohort.cohort_state import CohortState
from lightmuseg.cohort.slide_worker import SlideWorker, Task, take_slides
from lightmuseg.errors import InputError
from lightmuseg.runtimes.parity import TOLERANCES


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """What a worker does with slides: called with the outcomes of some in turn, the others are done at once."""
    monkeypatch.setattr(lightmuseg.cohort.slide_worker, "AGAIN_S", 0.0)
    state = CohortState(tmp_path / "out")
    slides = [CohortSlide(tmp_path / name, name) for name in "abcd"]

    def finish(slide):
        folder = state.results(slide)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"slide": slide.name, "files": {}}))

    def run(outcomes=(), failures=None):
        left = {name: list(some) for name, some in dict(outcomes).items()}

        def segment(slide):
            outcome = left[slide.name].pop(0) if left.get(slide.name) else "done"
            if outcome == "failed":
                state.fail(slide, "is broken", "")
            if outcome == "done":
                finish(slide)
            return outcome

        return [
            slide and slide.name
            for slide in take_slides(slides, state.failures() if failures is None else failures, state, segment)
        ]

    run.state, run.slides, run.finish = state, slides, finish
    return run


def test_slides_are_taken_in_order(taken):
    assert taken() == list("abcd")


def test_what_is_done_is_left_out(taken):
    taken.finish(taken.slides[1])
    assert taken() == list("acd")


def test_a_slide_that_another_process_holds_comes_again_after_the_others(taken):
    assert taken({"a": ["busy", "busy"]}) == ["a", "b", "c", "d", None, "a", None, "a"]


def test_a_slide_at_which_a_process_died_comes_after_the_others(taken, tmp_path):
    for name in (".a.partial", ".b.partial"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / ".a.partial" / "attempts.json").write_text("[1, 0]")
    assert taken() == list("bcda")


def test_a_slide_that_failed_before_is_tried_again_and_once(taken):
    state, slides = taken.state, taken.slides
    state.fail(slides[0], "was broken", "")
    assert taken({"a": ["failed"], "b": ["failed"]}) == list("abcd")
    # a worker that takes the place of another knows what failed before the run
    before = state.failures()
    state.fail(slides[1], "is broken", "")
    assert taken(failures=before) == ["a"]
    assert state.failure(slides[1]) == "is broken"


def test_a_cohort_goes_on_by_the_runtime_that_its_first_worker_took(tmp_path, make_slide, monkeypatch):
    monkeypatch.setattr("lightmuseg.runtimes.openvino.knows_bfloat16", lambda: True)
    monkeypatch.setitem(TOLERANCES, "bfloat16", (1.0, 1.0))
    slide = CohortSlide(make_slide("a.tif"), "a", 0.25)

    def precision(output, **values):
        task = Task(tmp_path / output, None, None, values, (slide,), (slide,), {})
        return SlideWorker(task)._model["precision"]

    assert precision("one") == "bfloat16"
    # as on a machine without it, or where nothing could be read at first
    assert precision("two", runtime="openvino") == "float32"
    assert precision("two") == "float32"
    with pytest.raises(InputError, match="was started with precision 'float32', not 'bfloat16'"):
        precision("two", runtime="openvino_bf16")
