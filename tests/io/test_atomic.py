"""Files are whole or not there, and what killed processes leave is removed."""

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import (
    TEMPORARY,
    atomic_folder,
    atomic_path,
    atomic_set,
    check_name_length,
    remove_leftovers,
    write_json_atomic,
    write_text_atomic,
)


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_when_it_is_whole(tmp_path, sync):
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path, sync) as temporary:
        temporary.write_text("content")
        assert temporary.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_stays_as_it_was_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomic(path, "before")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_sync_asks_the_disk_for_the_content_and_for_the_name(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_json_atomic(tmp_path / "a.json", {}, sync=True)
    assert len(asked) == 2
    assert asked[0].endswith(".part.json")
    assert asked[1] == str(tmp_path)
    write_json_atomic(tmp_path / "a.json", {})
    assert len(asked) == 2


def test_what_a_killed_process_leaves_is_removed_and_nothing_else(tmp_path):
    """The leftovers are real: the process is killed within ``atomic_path``."""
    code = (
        "import os, signal, sys; from pathlib import Path; from cellseg_d2.io.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'sub' / 'model.pth') as temporary:\n"
        "    temporary.write_text('half of'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = (tmp_path / "sub").iterdir()
    others = [".hidden", "a.1234.part.pth", ".a.part.pth", ".a.x.part", f".mine.{os.getpid()}.part.json"]
    for name in others:
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == [left]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "sub"])
    assert not list((tmp_path / "sub").iterdir())


@pytest.mark.parametrize(
    "name", ["n" * 251 + ".tif", "é" * 127, "." + "x" * 254, "a." + "y" * 253, "line\nbreak" + "z" * 200]
)
def test_a_file_with_a_name_as_long_as_names_can_be(tmp_path, name):
    """The temporary name is of the kind that is removed after a kill."""
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("content")
        assert TEMPORARY.fullmatch(temporary.name)
        assert temporary.suffix == (".tif" if name.endswith(".tif") else ".part")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(CellSegError, match="would have a name of 256 bytes, and 255 are possible"):
        check_name_length(tmp_path / ("é" * 128))


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "data"
    for content in ("first", "second"):
        with atomic_folder(path) as building:
            (building / f"{content}.txt").write_text(content)
        assert [file.name for file in path.iterdir()] == [f"{content}.txt"]

    def fail():
        with atomic_folder(path) as building:
            (building / "third.txt").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in path.iterdir()] == ["second.txt"]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/old.txt").touch()
    replace = os.replace

    def cut(source, target):
        if Path(source, "new.txt").exists():
            raise PermissionError(errno.EPERM, "Operation not permitted", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)

    def write():
        with atomic_folder(tmp_path / "data") as building:
            (building / "new.txt").touch()

    with pytest.raises(PermissionError) as caught:
        write()
    assert caught.value.filename == str(tmp_path / "data"), "not the temporary one"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


@pytest.mark.parametrize("name", ["n" * 250, "é" * 125])
def test_a_set_of_files_with_names_as_long_as_names_can_be(tmp_path, name):
    for content in ("old", "new"):
        with atomic_set():
            for file in (f"{name}.png", f"{name}.tif"):
                write_text_atomic(tmp_path / file, content)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            f"{name}.png": content,
            f"{name}.tif": content,
        }


def test_folders_of_killed_processes_are_removed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for name in (f".data.{process.pid}.part", f".other.{process.pid}.part", f".data.{os.getpid()}.part.x"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "a.png").touch()
    with atomic_folder(tmp_path / "data"):
        assert not (tmp_path / f".data.{process.pid}.part").exists()
    assert sorted(path.name for path in remove_leftovers(tmp_path)) == [f".other.{process.pid}.part"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".data.{os.getpid()}.part.x", "data"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_pair(folder, text):
    with atomic_set():
        write_text_atomic(folder / "train", text)
        assert not (folder / "train").exists() or (folder / "train").read_text() != text, "not before the end"
        write_text_atomic(folder / "val", text)


def test_a_set_of_files_appears_at_once(tmp_path):
    for text in ("old", "new"):
        write_pair(tmp_path, text)
        assert names(tmp_path) == ["train", "val"]
        assert (tmp_path / "train").read_text() == (tmp_path / "val").read_text() == text


@pytest.mark.parametrize("failing", range(6))
def test_of_a_set_that_cannot_be_placed_nothing_is(tmp_path, monkeypatch, failing):
    """Two files of before are put aside, and three take their places: each of these steps fails once, in vain."""
    (tmp_path / "train").write_text("old")
    (tmp_path / "val").write_text("old")
    count, replace = iter(range(1000)), os.replace

    def cut(source, target):
        if next(count) == failing:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)

    def write():
        with atomic_set():
            for name in ("train", "val", "audit"):
                write_text_atomic(tmp_path / name, "new")

    if failing < 5:
        with pytest.raises(PermissionError) as caught:
            write()
        assert Path(caught.value.filename).name in ("train", "val", "audit"), "not the temporary one"
    else:
        write()
    expected = {"train": "new", "val": "new", "audit": "new"} if failing == 5 else {"train": "old", "val": "old"}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == expected


def test_a_set_leaves_what_was_there_when_its_block_fails_or_a_folder_is_in_the_way(tmp_path):
    (tmp_path / "train").write_text("old")
    with suppress(ZeroDivisionError), atomic_set():
        write_text_atomic(tmp_path / "train", "new")
        raise ZeroDivisionError
    (tmp_path / "val").mkdir()
    (tmp_path / "val/inside").touch()
    with pytest.raises(OSError, match="directory") as caught:
        write_pair(tmp_path, "new")
    assert caught.value.filename == str(tmp_path / "val")
    assert (tmp_path / "train").read_text() == "old"
    assert names(tmp_path) == ["train", "val"]
    assert names(tmp_path / "val") == ["inside"]


def test_a_set_within_a_set_is_a_part_of_it(tmp_path):
    with suppress(ZeroDivisionError), atomic_set():
        write_pair(tmp_path, "new")
        raise ZeroDivisionError
    assert names(tmp_path) == []
