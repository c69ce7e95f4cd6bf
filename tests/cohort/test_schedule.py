import pytest

from lightmuseg.cohort.agenda import Agenda
from lightmuseg.cohort.cohort_state import CohortState
from lightmuseg.cohort.schedule import run
from lightmuseg.cohort.slide_worker import Report
from lightmuseg.cohort.work_list import CohortSlide
from lightmuseg.errors import InputError


class Played:
    """Workers that answer as a table says: of each slide its reports in turn, None for a worker that dies."""

    def __init__(self, answers, size=2, folder=None):
        self.answers, self.size, self.folder = answers, size, folder
        self.begun, self.running, self.most, self.closed = [], {}, 0, False

    def start(self, worker, slide):
        assert worker not in self.running
        self.begun.append(slide and slide.name)
        self.running[worker] = slide
        self.most = max(self.most, len(self.running))

    def finished(self, timeout):
        worker, slide = next(iter(self.running.items()))
        del self.running[worker]
        answers = self.answers.get(slide and slide.name)
        answer = answers.pop(0) if answers else "ready" if slide is None else "done"
        return [(worker, None if answer is None else Report(answer, f"{answer}!"))]

    def close(self):
        self.closed = True


def played(tmp_path, answers, names="abcd", size=2):
    slides = [CohortSlide(tmp_path / name, name, size=10) for name in names]
    agenda = Agenda(slides, CohortState(tmp_path / "out"))
    pool, forgiven = Played(answers, size), []
    try:
        run(pool, agenda, lambda slide: forgiven.append(slide.name), [], lambda: None)
    finally:
        assert pool.closed
    return pool, agenda, forgiven


def test_each_slide_goes_to_one_worker_in_order(tmp_path):
    pool, agenda, forgiven = played(tmp_path, {})
    assert pool.begun == [None, None, "a", "b", "c", "d"]
    assert (agenda.done, agenda.failed, pool.most, forgiven) == (4, {}, 2, [])


def test_no_more_workers_are_begun_than_there_are_slides(tmp_path):
    pool, _, _ = played(tmp_path, {}, names="a", size=8)
    assert pool.begun == [None, "a"]


def test_a_slide_whose_worker_died_comes_again_after_the_others(tmp_path, capsys):
    pool, agenda, _ = played(tmp_path, {"a": [None]}, size=1)
    assert pool.begun == [None, "a", None, "b", "c", "d", "a"]
    assert agenda.done == 4
    assert "a worker died at it" in capsys.readouterr().err


def test_workers_that_die_before_they_begin_end_the_run(tmp_path):
    with pytest.raises(InputError, match="3 workers died while they loaded the network"):
        played(tmp_path, {None: ["ready", None, None, None], "a": [None]}, size=1)


def test_a_failed_slide_is_counted_and_the_others_go_on(tmp_path):
    _, agenda, _ = played(tmp_path, {"b": ["failed"]})
    assert (agenda.done, agenda.failed) == (3, {"b": "failed!"})


def test_a_full_disk_ends_the_run_and_is_no_slides_fault(tmp_path):
    with pytest.raises(InputError, match=r"out: the disk is full .* the same command"):
        played(tmp_path, {"b": ["disk full"]})
    assert CohortState(tmp_path / "out").failure(CohortSlide(tmp_path / "b", "b")) is None


def test_slides_in_hand_when_a_run_ends_are_not_held_against_them(tmp_path):
    slides = [CohortSlide(tmp_path / name, name) for name in "ab"]
    forgiven = []

    def tick():
        if pool.begun[-1] == "b":
            raise KeyboardInterrupt

    pool = Played({})
    with pytest.raises(KeyboardInterrupt):
        run(
            pool, Agenda(slides, CohortState(tmp_path / "out")), lambda slide: forgiven.append(slide.name), [tick], tick
        )
    assert sorted(forgiven) == ["a", "b"]


@pytest.mark.parametrize(("status", "kind"), [("refused", InputError), ("broken", RuntimeError)])
def test_what_no_slide_is_to_blame_for_ends_the_run(tmp_path, status, kind):
    for answers in ({None: [status]}, {"a": [status]}):
        with pytest.raises(kind, match=f"{status}!"):
            played(tmp_path, answers)
