import pytest

from lightmuseg.cohort.cohort_slide import CohortSlide
from lightmuseg.cohort.cohort_state import CohortState
from lightmuseg.cohort.supervisor import DIED, ENDED, supervise
from lightmuseg.cohort.tally import Tally
from lightmuseg.errors import InputError

A, B = CohortSlide("a.svs", "a"), CohortSlide("b.svs", "b")


class Played:
    """Workers that report, in turns, what a list for each of them says; an error is raised."""

    def __init__(self, reports):
        self.reports, self.size = reports, len(reports)
        self.started, self.running, self.stopped = [], [], False

    def start(self, worker):
        assert worker not in self.running
        self.started.append(worker)
        self.running.append(worker)

    def news(self, timeout):
        worker = self.running.pop(0)
        news = self.reports[worker].pop(0)
        if isinstance(news, BaseException):
            raise news
        if news not in (DIED, ENDED):
            self.running.append(worker)
        return [(worker, news)]

    def stop(self):
        self.stopped = True


def played(tmp_path, *reports, slides=(A, B), look=lambda tally: None):
    """How workers were started, and what was yielded."""
    workers, ticks = Played(list(map(list, reports))), 0
    tally = Tally(slides, CohortState(tmp_path / "out"))
    try:
        for _ in supervise(workers, tally):
            ticks += 1
            look(tally)
    finally:
        assert workers.stopped
    return workers, ticks


def test_no_more_workers_are_started_than_there_are_slides(tmp_path):
    workers, _ = played(tmp_path, *[[None, ENDED]] * 8, slides=[A])
    assert workers.started == [0]


def test_a_run_ends_when_nothing_is_pending_and_no_worker_has_a_slide(tmp_path):
    ticks_left = [2]

    def look(tally):
        ticks_left[0] -= 1
        if ticks_left[0] < 0:
            tally.pending.clear()

    workers, ticks = played(tmp_path, [None, A, None, "more"], [None, None, None, "more"], look=look)
    assert workers.reports == [["more"], [None, "more"]]
    # the first tick is when a worker has loaded
    assert ticks == 5


def test_a_worker_that_dies_is_replaced_and_its_slide_is_named(tmp_path, caplog):
    workers, _ = played(tmp_path, [None, A, DIED, None, B, ENDED], [None, B, None, A, ENDED])
    assert workers.started == [0, 1, 0]
    assert caplog.messages == ["a.svs: a worker died at it; it is tried again"]


@pytest.mark.parametrize("first", [[], [None, A, DIED]])
def test_workers_that_die_while_they_load_end_the_run(tmp_path, first):
    with pytest.raises(InputError, match="3 workers died while they loaded the network"):
        played(tmp_path, [*first, DIED, DIED, DIED])
    workers, _ = played(tmp_path, [DIED, DIED, None, DIED, DIED, None, A, DIED, DIED, None, ENDED])
    assert workers.started == [0] * 7


@pytest.mark.parametrize("error", [InputError("refused"), RuntimeError("broken"), KeyboardInterrupt()])
def test_what_no_slide_is_to_blame_for_ends_the_run(tmp_path, error):
    for reports in ([error], [None, A, error]):
        with pytest.raises(type(error)):
            played(tmp_path, reports, [None, None, None, None])
