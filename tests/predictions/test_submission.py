"""Submission files: what is written is read back, what is wrong is named."""

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellseg_d2.errors import CellSegError
from cellseg_d2.predictions.submission import read_submission, validate_submission, write_submission

texts = st.lists(st.sampled_from(["1 3 10 2", "5 1", "7 2 20 4"]), max_size=3)


def test_the_format(tmp_path):
    path = tmp_path / "new folder" / "submission.csv"
    write_submission(path, {"7ae19de7bc2a": ["1 3 10 2", "5 1"], "d48ec7815252": []})
    assert path.read_bytes() == b"id,predicted\n7ae19de7bc2a,1 3 10 2\n7ae19de7bc2a,5 1\nd48ec7815252,\n"
    assert [file.name for file in path.parent.iterdir()] == ["submission.csv"], "no temporary file is left"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(cells=st.dictionaries(st.sampled_from(["1e55", "007", "NA", "None", "b,c", "x"]), texts))
def test_round_trip(tmp_path, suffix, cells):
    path = tmp_path / f"submission{suffix}"
    write_submission(path, cells)
    assert list(read_submission(path).items()) == list(cells.items()), "ids stay text, in order"


def test_gzip_is_real_and_reproducible(tmp_path):
    a, b = tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"
    for path in (a, b):
        write_submission(path, {"x": ["1 2"]})
    assert gzip.decompress(a.read_bytes()) == b"id,predicted\nx,1 2\n"
    assert a.read_bytes() == b.read_bytes()


def test_cells_without_pixels_are_left_out(tmp_path):
    write_submission(tmp_path / "a.csv", {"x": ["13 1 23 1", ""], "y": [""]})
    assert read_submission(tmp_path / "a.csv") == {"x": ["13 1 23 1"], "y": []}


def test_empty_rows_and_scattered_ids_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("predicted,id,more\n1 2,x,0\n,y,0\n 3 4 ,x,0\n,x,0\n")
    assert read_submission(path) == {"x": ["1 2", "3 4"], "y": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00id", "not text in UTF-8"),
        (b"id,annotation\nx,1 2\n", "lacks the column 'predicted'.*has id,annotation"),
        (b"x,1 2\n", "lacks the columns 'id', 'predicted'"),
        (b"id,predicted\nx,1 2,3\n", "more fields"),
        (b"id,predicted\nx,1 2\n,3 4\n", "line 3: the column 'id' is empty"),
        (b'id,predicted\nx,"1 2\n', "cannot be read as CSV"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(CellSegError, match=message) as caught:
        read_submission(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_paths(tmp_path):
    with pytest.raises(CellSegError, match="does not exist"):
        read_submission(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CellSegError, match="is a folder"):
        read_submission(tmp_path / "folder.csv")
    whole = gzip.compress(b"id,predicted\n" + b"x,1 2\n" * 1000)
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CellSegError, match="damaged or truncated gzip"):
        read_submission(tmp_path / "cut.csv.gz")


def test_a_good_submission_has_no_problems():
    cells = {"x": ["1 3 10 2", "4 2"], "y": []}  # the two masks of x touch, but share no pixel
    assert validate_submission(cells, (4, 5), ["y", "x"]) == []
    assert validate_submission(cells, {"x": (4, 5)}) == []


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({"x": ["1 3", "3 1 10 2"]}, "image x: cells overlap (contested pixels: 1)"),
        ({"x": ["1 3", "2 2", "1 3"]}, "image x: cells overlap (contested pixels: 5)"),
        ({"x": ["5 1", "1 2 x 4"]}, "image x, cell 2: 'x' is not a whole number"),
        ({"x": ["1 2 3"]}, "image x, cell 1: it has 3 numbers"),
        ({"x": ["19 3"]}, "image x, cell 1: outside the image"),
        ({"x": ["0 3"]}, "image x, cell 1: outside the image"),
        ({"x": ["1 0"]}, "image x, cell 1: non-positive length"),
        ({"x": ["9 2 1 2"]}, "image x, cell 1: unsorted"),
        ({"x": ["1 4 3 4"]}, "image x, cell 1: overlaps itself"),
    ],
)
def test_problems_of_masks(cells, problem):
    problems = validate_submission(cells, (4, 5))
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_problems_of_ids():
    problems = validate_submission({"x": [], "z": ["nonsense"]}, {}, ["x", "y", "a", "b", "c"])
    assert len(problems) == 2
    assert problems[0].startswith("no row for 4 images (y, a, b, …)")
    assert problems[1] == "rows for 1 image (z) that should not be there"
