"""Tables that pandas would read as something else than what they say."""

import gzip

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellseg_d2.errors import CellSegError
from cellseg_d2.io import csv
from cellseg_d2.io.csv import plain_text, read_csv_table, spreadsheet_table, spreadsheet_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,annotation\na,1 3\0 5 2\n", "NUL characters"),
        ("id,annotation\na,1 3\n".encode("utf-16-le"), "NUL characters"),
        ("id,annotation\na,1 3\n".encode("utf-16"), "NUL characters|no text in UTF-8"),
        (b"id,annotation,id\na,1 3,b\n", "several columns 'id'"),
    ],
)
def test_what_is_not_read(tmp_path, content, message):
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(CellSegError, match=message):
        read_csv_table(tmp_path / "in.csv", ("id", "annotation"))


def test_columns_of_one_name_that_nobody_asks_for_do_no_harm(tmp_path):
    (tmp_path / "in.csv").write_text("id,note,note,id.1\na,x,y,z\n")
    assert read_csv_table(tmp_path / "in.csv", ("id",)).to_dict("records") == [{"id": "a"}]


def test_a_small_file_may_not_unpack_to_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_MAX_UNPACKED", 10**5)
    (tmp_path / "in.csv").write_bytes(gzip.compress(b"id\n" + b"a\n" * 10**5))
    with pytest.raises(CellSegError, match="unpacks to more than"):
        read_csv_table(tmp_path / "in.csv", ("id",))


@given(st.text(st.sampled_from("'=+-@\t\ra1"), max_size=6))
@example("=1+1")
@example("'=1+1")
def test_texts_for_spreadsheets_come_back_and_are_no_formulas(text):
    written = spreadsheet_text(text)
    assert written[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert plain_text(written) == text
    assert (written == text) == (text.lstrip("'")[:1] not in ("=", "+", "-", "@", "\t", "\r") or not text.lstrip("'"))


def test_tables_for_spreadsheets_keep_their_numbers(tmp_path):
    table = pd.DataFrame({"image": ["=1+1", "a"], "x": [-1.5, 2.0]})
    spreadsheet_table(table).to_csv(tmp_path / "out.csv", index=False)
    assert (tmp_path / "out.csv").read_text() == "image,x\n'=1+1,-1.5\na,2.0\n"
    read = read_csv_table(tmp_path / "out.csv", ("image", "x"))
    assert read.to_dict("list") == {"image": ["=1+1", "a"], "x": ["-1.5", "2.0"]}
