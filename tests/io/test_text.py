"""JSON and YAML as plain values, and what is none of it in one sentence."""

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import check_inside, is_json_list, read_json, read_record, read_yaml


def test_plain_values(tmp_path):
    (tmp_path / "in.json").write_text('\ufeff{"a": [1, 2.5, null]}', encoding="utf-8")
    assert read_json(tmp_path / "in.json") == {"a": [1, 2.5, None]}
    (tmp_path / "in.yaml").write_text("a: &x [1, 2.5]\nb: {<<: {c: 3}, d: *x}\n")
    assert read_yaml(tmp_path / "in.yaml") == {"a": [1, 2.5], "b": {"c": 3, "d": [1, 2.5]}}
    (tmp_path / "in.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "in.yaml") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1', "cannot be read as JSON"),
        ("1" * 5000, "cannot be read as JSON"),
    ],
)
def test_other_json(tmp_path, content, message):
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(CellSegError, match=message):
        read_json(tmp_path / "in.json")
    with pytest.raises(CellSegError, match="does not exist"):
        read_json(tmp_path / "none.json")
    with pytest.raises(CellSegError, match="cannot be read as JSON"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[\n" * 2000, "nested too deeply"),
        ("a: [", "not valid YAML"),
        ("a: 2001-99-99", "month must be in"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("a: &a [*a]", "stands for more than"),
        ("a: &a0 [1, 1]\n" + "".join(f"b{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 9)), "stands for more"),
        (b"\xff\xfe\0", "not valid YAML"),
    ],
)
def test_other_yaml(tmp_path, content, message):
    (tmp_path / "in.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CellSegError, match=message):
        read_yaml(tmp_path / "in.yaml")
    with pytest.raises(CellSegError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "3", '{"a": 1', "\udcff"])
def test_a_record_that_is_missing_or_damaged_is_none(tmp_path, content):
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    assert read_record(path) is None
    path.write_text('{"a": [1, null]}', encoding="utf-8")
    assert read_record(path) == {"a": [1, None]}


def test_a_name_stays_in_its_folder():
    for name in ("a.png", "b/a.png", "..a/a..png", "/data/a.png", "C:\\data\\a.png"):
        assert check_inside(name, "in.json") == name
    for name in ("../a.png", "b/../../a.png", "..\\a.png", "/data/../a.png", ".."):
        with pytest.raises(CellSegError, match=r"in.json names the file '.*', which leads out of the folder"):
            check_inside(name, "in.json")


@pytest.mark.parametrize(
    ("text", "expected"), [("[]", True), ('\ufeff \n[{"a": 1}]', True), ('{"a": []}', False), ("", False)]
)
def test_lists_are_told_by_their_beginning(tmp_path, text, expected):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert is_json_list(path) == expected
