"""Files are whole or not there, and what killed processes leave is removed."""

import os
import subprocess
import sys

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import (
    TEMPORARY,
    atomic_folder,
    atomic_path,
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
