"""What is done of a batch is kept image by image, and is taken up again only if nothing has changed."""

import csv
import io

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.items import Item
from cellseg_d2.inference.unfinished import ImageResult, UnfinishedBatch, state_of, write_tables

SETTINGS = {"weights": "abc", "tile": 512, "POSTPROCESS": {"MIN_AREAS": (30, 60)}}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "images" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"pixels")
    return path


@pytest.fixture
def parts(tmp_path):
    parts = UnfinishedBatch(tmp_path / "results")
    assert not parts.start(SETTINGS, resume=True), "there is nothing to resume at first"
    return parts


def test_a_part_comes_back_until_its_image_changes(parts, image):
    part = ImageResult("a", state_of(image), {"cort": 2}, ["1 2", "5 1"], "image,cell\na,1\n")
    assert parts.get(Item(image)) is None
    parts.put(Item(image), part)
    assert UnfinishedBatch(parts.output).get(Item(image)) == part
    image.write_bytes(b"other pixels")
    assert parts.get(Item(image)) is None
    image.unlink()
    assert state_of(image) == []
    assert parts.get(Item(image)) is None


def test_a_damaged_part_is_done_again(parts, image):
    parts.put(Item(image), ImageResult("a", state_of(image)))
    (path,) = [path for path in parts.folder.iterdir() if path.name != "settings.json"]
    for content in (b"", b"[]", b"{}", b'{"name": "a", "more": 1}', path.read_bytes()[:20], b"\xff\xfe"):
        path.write_bytes(content)
        assert parts.get(Item(image)) is None, content


def test_only_the_same_settings_are_resumed(parts, image):
    parts.put(Item(image), ImageResult("a", state_of(image)))
    with pytest.raises(CellSegError, match=r"other settings \(tile, POSTPROCESS.MIN_AREAS\)"):
        parts.start({**SETTINGS, "tile": 256, "POSTPROCESS": {"MIN_AREAS": (30,)}}, resume=True)
    assert parts.start(SETTINGS, resume=True)
    assert parts.get(Item(image)) is not None, "neither lost by the refusal nor by resuming"
    assert not parts.start(SETTINGS, resume=False)
    assert parts.get(Item(image)) is None
    parts.remove()
    assert not parts.folder.exists()


def test_what_a_killed_process_left_is_removed(parts):
    leftover = parts.output / ".cells.1.part.csv"
    leftover.touch()
    mine = parts.output / "cells.csv"
    mine.touch()
    parts.start(SETTINGS, resume=True)
    assert mine.exists()


def test_tables_below_each_other(tmp_path):
    tables = ["image,area\na,3\n", 'image,"mean, grey"\n"b, c",7\n', "image,area\n"]
    write_tables(tmp_path / "cells.csv", lambda: iter(tables))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "cells.csv").read_text())))
    assert rows == [{"image": "a", "area": "3", "mean, grey": ""}, {"image": "b, c", "area": "", "mean, grey": "7"}]
    write_tables(tmp_path / "none.csv", lambda: iter(()))
    assert (tmp_path / "none.csv").read_text() == "image\n"
