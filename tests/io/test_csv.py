"""Tables that pandas would read as something else than what they say."""

import gzip
import re
import tracemalloc

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellseg_d2.errors import CellSegError
from cellseg_d2.io import csv
from cellseg_d2.io.csv import plain_text, read_csv_table, short_number, spreadsheet_table, spreadsheet_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,annotation\na,1 3\0 5 2\n", "NUL characters"),
        ("id,annotation\na,1 3\n".encode("utf-16-le"), "NUL characters"),
        ("id,annotation\na,1 3\n".encode("utf-16"), "NUL characters|not text in UTF-8"),
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


def test_lines_are_counted_through_blank_ones_and_over_any_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_CHUNK_VALUES", 10)
    lines = ["" if n % 3 == 0 else f"a{n}, x" for n in range(2, 100)]
    (tmp_path / "in.csv").write_text("\n".join(["id,note", *lines]))
    table = read_csv_table(tmp_path / "in.csv", ("id",), ("note", "other"))
    assert table.index.tolist() == [n for n in range(2, 100) if n % 3]
    assert table["id"].tolist() == [f"a{n}" for n in range(2, 100) if n % 3]
    assert set(table["note"]) == {"x"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_before_the_header(tmp_path, end):
    (tmp_path / "in.csv").write_bytes(f"{end}{end}id,note{end}a,x{end}".encode())
    assert read_csv_table(tmp_path / "in.csv", ("id", "note")).to_dict("index") == {4: {"id": "a", "note": "x"}}


@pytest.mark.parametrize("row", [b"a\n", b"\n", b",\n", b"a,b,c,d\n", b"x" * 1000 + b"\n"])
def test_a_small_file_may_not_unpack_to_any_size(tmp_path, row):
    """70 MB in some 70 kB, and the same where it is unpacked: refused at once, with no more than what is allowed."""
    (tmp_path / "in.csv").write_bytes(gzip.compress(b"id,note\n" + row * (70 * 10**6 // len(row))))
    tracemalloc.start()
    with pytest.raises(CellSegError, match="unpacks to more than 34 MB"):
        read_csv_table(tmp_path / "in.csv", ("id",))
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()


@pytest.mark.parametrize("row", [b"a\n", b"\n", b",\n", b"a,b\n"])
def test_memory_for_a_table_follows_the_size_of_its_text(tmp_path, monkeypatch, row):
    """A table of a megabyte that is read in eighths of the usual chunks is one of 8 MB in small."""
    monkeypatch.setattr(csv, "_CHUNK_VALUES", csv._CHUNK_VALUES // 8)
    (tmp_path / "in.csv").write_bytes(b"id,note\n" + row * (10**6 // len(row)))
    tracemalloc.start()
    read_csv_table(tmp_path / "in.csv", ("id",), ("note",))
    assert tracemalloc.get_traced_memory()[1] < 60 * 10**6
    tracemalloc.stop()


def test_a_header_without_end(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"id" + b"," * 10**6 + b"\n" + b"a\n" * 10**5)
    with pytest.raises(CellSegError, match="1000000 commas in its header"):
        read_csv_table(tmp_path / "in.csv", ("id",))


def test_memory_that_does_not_suffice_is_told(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    (tmp_path / "in.csv").write_text("id\na\n")
    monkeypatch.setattr(csv.pd, "concat", full)
    with pytest.raises(CellSegError, match=r"in\.csv does not fit into memory"):
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


@given(st.floats(-1e12, 1e12))
def test_numbers_have_four_digits_and_all_before_the_point(value):
    shown = float(short_number(value))
    assert abs(shown - value) <= min(0.5, 0.0005 * abs(value) + 1e-300) * (1 + 1e-9)
    assert len(re.sub(r"e.*|\D", "", short_number(value)).lstrip("0")) <= max(4, len(f"{abs(value):.0f}"))
