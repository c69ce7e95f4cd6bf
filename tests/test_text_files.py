"""Text, JSON and tables are read as they were written, and what is none of them is refused."""

import csv
import json
import os

import pytest
import torch

from lightmuseg.errors import InputError
from lightmuseg.text_files import read_csv, read_json, text_of, unescaped, write_csv, write_json, write_text


def test_write_json_round_trips_other_alphabets(tmp_path):
    content = {"patient": "Žofia Müller", "组织": ["µm", "mm²", "😀"], "mpp": 0.25, "none": None}
    write_json(tmp_path / "run.json", content)
    text = (tmp_path / "run.json").read_bytes().decode("utf-8")
    assert json.loads(text) == content
    assert "Žofia Müller" in text
    assert text.endswith("}\n")


def test_write_json_turns_paths_and_devices_into_text(tmp_path):
    write_json(tmp_path / "run.json", {"path": tmp_path, "device": torch.device("cpu")})
    assert json.loads((tmp_path / "run.json").read_text()) == {"path": str(tmp_path), "device": "cpu"}


def test_table_has_the_columns_of_every_row(tmp_path):
    write_csv(tmp_path / "rows é.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "dice": 0.1}])
    assert (tmp_path / "rows é.csv").read_text(encoding="utf-8") == "epoch,loss,dice\n1,0.5,\n2,0.25,0.1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows é.csv"]


FORMULAS = [
    '=HYPERLINK("http://example.org";"open")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "-",
    "--1",
]
TEXTS = ["", "a=b", "'quoted'", "it's", " =1", "é", "a,b;c", "two\nlines", "P-1"]


def cells_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("text", FORMULAS)
def test_no_table_holds_what_a_spreadsheet_runs(tmp_path, text):
    write_csv(tmp_path / "t.csv", [{"slide": text, text: 1}])
    assert cells_of(tmp_path / "t.csv") == [["slide", f"'{text}"], [f"'{text}", "1"]]


@pytest.mark.parametrize("text", [*FORMULAS, *(f"'{text}" for text in FORMULAS), "''=1", *TEXTS])
def test_a_table_is_read_as_it_was_written(tmp_path, text):
    rows = [{"slide": text, "x": "1"}, {"slide": "b", "x": text}]
    write_csv(tmp_path / "t.csv", rows)
    assert read_csv(tmp_path / "t.csv") == rows


@pytest.mark.parametrize("number", [-0.5, 3, -1e-9, float("-inf"), "-0.5", "+1", "-1e5", None, *TEXTS])
def test_numbers_and_plain_text_stand_in_a_table_as_they_are(tmp_path, number):
    write_csv(tmp_path / "t.csv", [{"value": number, "x": 0}])
    assert cells_of(tmp_path / "t.csv")[1] == ["" if number is None else str(number), "0"]


def test_rows_that_are_too_short_or_long_are_read_by_the_columns(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1\n\n1,2,3\n")
    assert read_csv(tmp_path / "t.csv") == [{"a": "1", "b": ""}, {"a": "1", "b": "2"}]
    (tmp_path / "t.csv").write_text("")
    assert read_csv(tmp_path / "t.csv") == []


@pytest.mark.parametrize("content", [b"slide\n\xff", b"a\n" + b"x" * 200_000], ids=["latin-1", "long"])
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"\A\S+t.csv: is no CSV file in UTF-8 \(.*; move it away.\Z"):
        read_csv(tmp_path / "t.csv")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b" " * 101 + b"1"], ids=len)
def test_what_is_no_small_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    most = 100 if content.endswith(b"1") else 1_000_000
    with pytest.raises(InputError, match=r"\A\S+a.json: [^\n]*; make it again.\Z"):
        read_json(tmp_path / "a.json", "make it again", most)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="is no file of at most 50 MB"):
        read_json(tmp_path / "a.json", "make it again")


def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + '{"é": [1, 2.5]}'.encode())
    assert read_json(tmp_path / "a.json", "") == {"é": [1, 2.5]}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "cp1252", "latin-1"]
)
def test_text_of_other_programs_is_read_in_their_encoding(encoding):
    assert text_of("slide;Pr\u00e4parat, \u00b5m\r\n".encode(encoding)) == "slide;Pr\u00e4parat, \u00b5m\r\n"


def test_every_byte_has_a_letter_in_text_that_is_no_unicode():
    # of Latin-1 where cp1252 has none
    text = text_of(b"x " + bytes(range(128, 256)))[2:]
    assert text[:3] == "\u20ac\x81\u201a"
    assert text[32:] == bytes(range(160, 256)).decode("latin-1")


def test_a_name_that_is_no_unicode_is_the_same_after_it_was_written(tmp_path):
    name = os.fsdecode(b"Pr\xe4 \\udx.tif")
    write_text(tmp_path / "a.txt", name)
    assert unescaped((tmp_path / "a.txt").read_text(encoding="utf-8")) == name
