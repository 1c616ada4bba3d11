"""CSV files of any origin: the cells that a slow reading gives, or a clear error."""

import csv
import io
from contextlib import suppress

import numpy as np
from hypothesis import strategies as st

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.sartorius import SartoriusCsv
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.csv import read_csv_table
from cellseg_d2.predictions.truth import read_predictions, read_truth
from tests.fuzz.cases import fuzz

COLUMNS = ["id", "annotation", "width", "height", "cell_type"]
HEIGHT, WIDTH = 8, 10

fields = {
    "id": st.sampled_from(["a", "a", "b", "ä", "", " a ", "nan"]),
    "annotation": st.sampled_from(
        ["1 3", "1 3 10 5", "71 10", "80 1", "80 2", "3 3 1 1", "1 3 2 3", "", "nan", "1", "x"]
    )
    | st.lists(st.integers(-5, 90), min_size=2, max_size=6).map(lambda values: " ".join(map(str, values))),
    "width": st.sampled_from(["10", "10", "10", "10.0", "1e1", "0", "-10", "nan", "inf", "1e30", "2147483647", ""]),
    "height": st.sampled_from(["8", "8", "8", "8.0", "9", "-8", "2147483647", ""]),
    "cell_type": st.sampled_from(["cort", "cort", "astro", "HeLa", ""]),
    "sample_id": st.sampled_from(["p_A1-2_x", "p", ""]),
}


@st.composite
def files(draw):
    """``(bytes, rows)``; rows are those that a plain file holds, None where there is more to it."""
    columns = draw(st.permutations(COLUMNS)) if draw(st.booleans()) else list(COLUMNS)
    plain = True
    for change in draw(st.lists(st.sampled_from(["drop", "twice", "more", "sample_id", "case"]), max_size=1)):
        if change == "drop":
            columns.pop()
        else:
            columns.append({"twice": columns[0], "case": "ID", "more": "note", "sample_id": "sample_id"}[change])
        plain = change != "twice"
    rows = draw(st.lists(st.tuples(*(fields.get(name, st.just("-")) for name in columns)), max_size=5))
    separator = draw(st.sampled_from([",", ",", ",", ",", ";", "\t", "|", " "]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([columns, *rows])
    text = buffer.getvalue()
    damage = draw(st.sampled_from([None] * 5 + ["cut", "insert", "long row", "short row", "blank"]))
    if damage == "cut":
        text, plain = text[: draw(st.integers(0, len(text)))], False
    elif damage == "insert":
        at = draw(st.integers(0, len(text)))
        odd = draw(st.sampled_from(['"', "\0", ",", "\r", "\n", "'", "\ufeff", "\\"]))
        text, plain = text[:at] + odd + text[at:], False
    elif damage == "long row":
        text, plain = text + separator.join("1" * 9) + end, False
    elif damage == "short row":
        text, plain = text + "a" + end, False
    elif damage == "blank":
        text += end
    encoding = draw(st.sampled_from(["utf-8"] * 4 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"]))
    plain = plain and separator == "," and (encoding.startswith("utf-8") or (encoding == "latin-1" and text.isascii()))
    return text.encode(encoding, "replace"), [dict(zip(columns, row, strict=True)) for row in rows] if plain else None


def cleaned(value):
    return "" if value.strip().lower() == "nan" else value.strip()


def pixels(text):
    """The mask of a text of the competition; None where it is none."""
    try:
        values = [int(token) for token in text.split()]
    except ValueError:
        return None
    if len(values) % 2:
        return None
    mask = np.zeros(HEIGHT * WIDTH, bool)
    for start, length in zip(values[::2], values[1::2], strict=True):
        mask[max(0, start - 1) : max(0, start - 1 + length)] = True
    return mask.reshape(HEIGHT, WIDTH)


@fuzz(400, files())
def test_tables_and_annotations(folder, case):
    content, rows = case
    path = folder / "train.csv"
    path.write_bytes(content)
    table = read_csv_table(path, COLUMNS, ["sample_id"])
    if rows is not None:
        assert set(COLUMNS) <= rows[0].keys() if rows else True
        expected = [{name: cleaned(row[name]) for name in table} for row in rows]
        assert table.to_dict("records") == [row for row in expected if any(row.values())]
    log = FindingLog(clean=True)
    source = SartoriusCsv(path)
    for record in source.records(log):
        for cell in record.cells:
            assert cell.crop.area > 0
            x0, y0, x1, y1 = cell.crop.box
            assert 0 <= x0 < x1 <= record.width
            assert 0 <= y0 < y1 <= record.height
            row = table.loc[cell.row]
            assert (row["id"], row["cell_type"]) == (record.id, cell.cell_type)
            if (record.height, record.width) == (HEIGHT, WIDTH):
                assert np.array_equal(cell.crop.to_full(HEIGHT, WIDTH), pixels(row["annotation"]))
    log = FindingLog()
    kept = sum(len(record.cells) for record in source.records(log))
    assert kept == source.rows or len(log) > 0, "no row is left out without a word"
    log.raise_open_errors(path)


@fuzz(100, st.tuples(files(), files()))
def test_scoring_files(folder, case):
    truth_file, submission_file = folder / "truth.csv", folder / "submission.csv"
    truth_file.write_text("id,annotation,width,height,cell_type\na,1 3,10,8,cort\nb,,10,8,cort\n")
    truth = read_truth(truth_file)
    truth_file.write_bytes(case[1][0])
    with suppress(CellSegError):
        read_truth(truth_file)
    submission_file.write_bytes(case[0][0].replace(b"annotation", b"predicted"))
    predictions = read_predictions(submission_file, truth)
    assert predictions.masks.keys() <= truth.images.keys()
