from types import SimpleNamespace

import lightmuseg.cohort.cohort_progress
from lightmuseg.cohort.cohort_progress import Progress


def test_the_bar_says_how_many_how_fast_how_long_and_what_failed(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(lightmuseg.cohort.cohort_progress.time, "monotonic", lambda: now)
    agenda = SimpleNamespace(total=6, done=2, failed={"old": "was so before"}, bytes_done=10, bytes_total=100)
    with Progress(agenda) as progress:
        progress.show()
        # in a minute two done and one failed, which had a third of the bytes that were left
        now += 60
        agenda.done, agenda.bytes_done, agenda.failed["x"] = 4, 40, "x.svs: is cut short"
        progress.show()
    said = capsys.readouterr().err
    assert "2 of 6 slides" in said
    assert "4 of 6 slides" in said
    assert "2 failed, 120 slides/h, 02:00 left" in said
    assert said.count("lightmuseg: error: x.svs: is cut short") == 1
    assert "was so before" not in said
