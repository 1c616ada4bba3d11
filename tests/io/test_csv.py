"""Tables that pandas would read as something else than what they say."""

import gzip

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.io import csv
from cellseg_d2.io.csv import read_csv_table


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
