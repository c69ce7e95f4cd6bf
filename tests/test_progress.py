from lightmuseg.progress import bar_of


def test_bar_begins_where_the_slide_does_and_ends_with_it(capsys):
    with bar_of("a.svs") as progress:
        assert capsys.readouterr().err == ""
        for done in (6, 9, 12):
            progress(done, 12)
        shown = capsys.readouterr().err
    assert shown.startswith("\ra.svs:  50%")
    assert "12/12" in shown
    assert shown.endswith("\n")
    assert capsys.readouterr().err == ""


def test_no_bar_where_nothing_is_reported(capsys):
    with bar_of("a.svs"):
        pass
    assert capsys.readouterr().err == ""
