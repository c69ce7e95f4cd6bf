from pathlib import Path

from lightmuseg.progress import SlideBars


def test_each_slide_has_a_bar_that_starts_where_it_does_and_ends_with_it(capsys):
    bars = SlideBars()
    assert capsys.readouterr().err == ""
    for done in (6, 9, 12):
        bars(Path("a.svs"), done, 12)
    shown = capsys.readouterr().err
    assert shown.startswith("\ra.svs:  50%")
    assert "12/12" in shown
    assert shown.endswith("\n")
    bars(Path("b.svs"), 0, 4)
    bars(Path("c.svs"), 1, 4)
    bars.close()
    shown = capsys.readouterr().err
    assert "b.svs:   0%" in shown
    assert "c.svs:  25%" in shown


def test_steps_have_bars_of_their_own_unit(capsys):
    bars = SlideBars("region")
    bars("cutting", 1, 2)
    bars.close()
    shown = capsys.readouterr().err
    assert "cutting:  50%" in shown
    assert "region/s" in shown
