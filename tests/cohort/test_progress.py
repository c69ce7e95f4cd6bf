from types import SimpleNamespace

import pytest

import lightmuseg.cohort.cohort_progress
from lightmuseg.cohort.cohort_progress import Progress


def test_the_bar_says_how_many_how_fast_how_long_and_what_failed(monkeypatch, capsys, tmp_path):
    now = 1000.0
    monkeypatch.setattr(lightmuseg.cohort.cohort_progress.time, "monotonic", lambda: now)
    tally = SimpleNamespace(
        slides_total=6, done=2, failed={"old": "was so"}, bytes_ended=10, bytes_total=100, pending=[1]
    )
    with Progress(tmp_path) as progress:
        progress.show(tally)
        # in a minute two done and one failed, which had a third of the bytes that were left
        now += 60
        tally.done, tally.bytes_ended, tally.failed["x"] = 4, 40, "x.svs: is cut short"
        progress.show(tally)
    printed = capsys.readouterr().err
    assert "2 of 6 slides" in printed
    assert "4 of 6 slides" in printed
    assert "2 failed, 120 slides/h, 02:00 left" in printed
    assert printed.count("lightmuseg: error: x.svs: is cut short") == 1
    assert printed.count("was so") == 1


def test_of_very_many_that_cannot_be_tried_some_are_named(capsys, tmp_path):
    failed = {str(number): f"slide {number}" for number in range(50)}
    with Progress(tmp_path) as progress:
        progress.show(SimpleNamespace(failed=failed, pending=[]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "lightmuseg: error: slide 0"
    assert lines[20:] == [f"lightmuseg: error: 30 more; see {tmp_path / 'cohort.csv'}"]


def test_a_stop_says_how_to_go_on(capsys, tmp_path):
    with pytest.raises(KeyboardInterrupt), Progress(tmp_path):
        raise KeyboardInterrupt
    assert f"{tmp_path}: stopped; the same command goes on where it was" in capsys.readouterr().err
