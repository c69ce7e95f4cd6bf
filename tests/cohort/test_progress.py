from types import SimpleNamespace

import lightmuseg.cohort.cohort_progress
from lightmuseg.cohort import CohortBar


def test_the_bar_says_how_many_how_fast_how_long_and_what_failed(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(lightmuseg.cohort.cohort_progress.time, "monotonic", lambda: now)
    tally = SimpleNamespace(
        slides_total=6, done=2, failed={"old": "was so"}, bytes_ended=10, bytes_total=100, pending=[1]
    )  # fmt: skip
    bar = CohortBar()
    bar(tally)
    # in a minute two done and one failed, which had a third of the bytes that were left
    now += 60
    tally.done, tally.bytes_ended, tally.failed["x"] = 4, 40, "x.svs: is cut short"
    bar(tally)
    bar.close()
    printed = capsys.readouterr().err
    assert "2 of 6 slides" in printed
    assert "4 of 6 slides" in printed
    assert "2 failed, 120 slides/h, 02:00 left" in printed
