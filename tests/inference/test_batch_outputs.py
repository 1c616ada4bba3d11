"""What a batch leaves in its folder: nothing of other images, nothing taken for an image, one file for each name."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from cellseg_d2.datasets.find import find_inputs
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import find_images
from cellseg_d2.inference.batch import _images_table, segment_files
from cellseg_d2.inference.classical import ClassicalSegmenter
from cellseg_d2.inference.items import Item
from cellseg_d2.inference.unfinished import ImageResult, content_of
from cellseg_d2.io.csv import csv_text
from cellseg_d2.io.file_names import check_distinct
from cellseg_d2.io.outputs import is_own_result
from tests.discs import disc_image
from tests.quick_python import quick_python


def write_image(path, seed, count=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(disc_image(np.random.default_rng(seed), 96, count, 0)[0]).save(path)
    return path


def segmenter():
    return ClassicalSegmenter("otsu", least_area=9)


def interrupted(paths, out, saved):
    """A batch that ends at the image ``b``, as one that is killed there."""
    stopping, segment = segmenter(), ClassicalSegmenter.segment

    def stop(image, **options):
        if Path(image).stem == "b":
            raise KeyboardInterrupt
        return segment(stopping, image, **options)

    stopping.segment = stop
    with pytest.raises(KeyboardInterrupt):
        segment_files(stopping, paths, out, saved)


def with_size_and_time_of(path, other):
    """Give a file the size and time of another one, as plates of one machine may have them."""
    data = path.read_bytes()
    path.write_bytes(data.ljust(other.stat().st_size, b"\0"))
    os.utime(path, ns=(other.stat().st_atime_ns, other.stat().st_mtime_ns))


@pytest.mark.parametrize("swapped", [False, True])
def test_another_plate_is_not_taken_for_the_one_before(tmp_path, swapped):
    """Files of equal names, sizes and times: in another folder, or put in the place of the first ones."""
    plates = [
        [write_image(tmp_path / plate / f"{name}.png", seed, 2 + 3 * seed) for name in "ab"]
        for seed, plate in enumerate(("one", "two"))
    ]
    largest = max((path for plate in plates for path in plate), key=lambda path: path.stat().st_size)
    for path in (path for plate in plates for path in plate):
        with_size_and_time_of(path, largest)
    interrupted(plates[0], tmp_path / "out", ["csv", "labels"])
    paths = plates[1]
    if swapped:
        (tmp_path / "one").rename(tmp_path / "gone")
        (tmp_path / "two").rename(tmp_path / "one")
        paths = plates[0]
    result = segment_files(segmenter(), paths, tmp_path / "out", ["csv", "labels"], resume=True)
    assert result.resumed == 0
    expected = segment_files(segmenter(), paths, tmp_path / "expected", ["csv", "labels"])
    assert result.counts == expected.counts
    for file in ("cells.csv", "labels/a_labels.tif", "labels/b_labels.tif"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()


def test_the_same_files_by_another_path_are_done_anew_and_by_a_relative_one_are_not(tmp_path, monkeypatch):
    paths = [write_image(tmp_path / f"in/{name}.png", 0) for name in "ab"]
    monkeypatch.chdir(tmp_path)
    interrupted(paths, tmp_path / "out", ["csv"])
    relative = [Path("in/a.png"), Path("in/b.png")]
    assert segment_files(segmenter(), relative, tmp_path / "out", ["csv"], resume=True).resumed == 1


@pytest.mark.parametrize("size", [0, 1, 5 << 20, 65 << 20])
def test_a_fingerprint_tells_a_changed_byte(tmp_path, size):
    """Anywhere in files of up to 64 MiB, and at both ends of all."""
    path = tmp_path / "image.tif"
    with open(path, "wb") as file:
        file.truncate(size)
    seen = {content_of(path)}
    for place in {0, size // 3 if size < 64 << 20 else 0, size - 1} if size else ():
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"\1")
        seen.add(content_of(path))
    assert len(seen) == (1 if not size else 2 if size == 1 else 3 if size > 64 << 20 else 4)
    assert content_of(tmp_path / "none") == ""


def test_results_of_removed_and_failed_images_are_told(tmp_path):
    paths = [write_image(tmp_path / f"in/{name}.png", seed) for seed, name in enumerate("abc")]
    out = tmp_path / "out"
    assert segment_files(segmenter(), paths, out, ["labels", "overlay", "csv", "submission"]).older == []
    paths[2].write_bytes(b"no image")
    result = segment_files(segmenter(), paths[1:], out, ["labels", "csv"])
    assert set(result.failed) == {paths[2]}
    labels = [out / f"labels/{name}_labels.tif" for name in "ac"]
    assert result.older == sorted(
        [*labels, *(out / f"overlay/{name}_overlay.png" for name in "abc"), out / "submission.csv"]
    )
    for path in result.older:
        path.unlink()
    assert {path.name for path in out.rglob("*") if path.is_file() and ".unfinished" not in path.parts} == {
        "b_labels.tif",
        "cells.csv",
    }


def test_the_tool_says_so(tmp_path, call_tool):
    paths = [write_image(tmp_path / f"in/{name}.png", 0) for name in "ab"]
    words = ("--model", "otsu", "--input", tmp_path / "in", "--output", tmp_path / "out", "--save", "labels", "csv")
    assert "note" not in call_tool("infer", *words)[1]
    paths[0].unlink()
    code, said = call_tool("infer", *words)
    assert code == 0
    assert (
        f"note: files of an earlier call that are none of these results: 1, such as {tmp_path / 'out/labels'}" in said
    )


@pytest.mark.parametrize("pattern", ["**/*.png", "**/*.tif*", "*/*/*"])
def test_own_results_are_not_taken_for_images(tmp_path, pattern, caplog, call_tool):
    for name in "ab":
        write_image(tmp_path / f"d/{name}.png", 0)
        image = Image.open(tmp_path / f"d/{name}.png")
        image.save(tmp_path / f"d/{name}2.tif")
    segment_files(segmenter(), find_images(tmp_path / "d"), tmp_path / "d/res", ["labels", "overlay"])
    own = sorted(path for path in (tmp_path / "d/res").rglob("*_*") if path.is_file())
    assert len(own) == 8
    assert all(map(is_own_result, own))
    expected = [] if pattern == "*/*/*" else sorted((tmp_path / "d").glob(pattern.removeprefix("**/")))
    caplog.clear()
    if expected:
        assert find_images(str(tmp_path / "d" / pattern)) == expected
        assert "left out, since this project has written them: 4 images" in caplog.text
    else:
        with pytest.raises(CellSegError, match="holds no images but 8 that this project has written"):
            find_images(str(tmp_path / pattern / "*"))
    with pytest.raises(CellSegError, match="holds no images but 4 that this project has written"):
        find_images(tmp_path / "d/res/overlay")
    assert find_images(own[0]) == [own[0]], "one that is named is meant"


def test_pictures_of_other_tools_are_marked_too(tmp_path, call_tool):
    write_image(tmp_path / "in/a.png", 0)
    (tmp_path / "truth.csv").write_text("id,annotation,width,height,cell_type\na,1 3,96,96,cort\n")
    (tmp_path / "submission.csv").write_text("id,predicted\na,1 3\n")
    truth = ("--ground-truth", tmp_path / "truth.csv", "--images", tmp_path / "in", "--output", tmp_path / "in/out")
    assert call_tool("visualize", "dataset", *truth)[0] == 0
    assert call_tool("analyze_errors", "--predictions", tmp_path / "submission.csv", *truth)[0] == 0
    own = list((tmp_path / "in/out").rglob("*.png"))
    assert len(own) >= 6
    assert all(map(is_own_result, own))
    assert find_images(str(tmp_path / "in/**/*.png")) == [tmp_path / "in/a.png"]


@pytest.mark.parametrize(
    "names",
    [
        ("a:b.png", "a_b.png"),
        ("a?b.png", "a:b.png"),
        ("A.png", "a.tif"),
        ("é.png", "e\u0301.png"),
        ("a.png", "x/a.png"),
    ],
)
def test_names_that_become_one_are_refused(tmp_path, names, call_tool):
    paths = [tmp_path / "in" / name for name in names]
    for seed, path in enumerate(paths):
        write_image(path, seed)
    for path in paths:
        assert segment_files(segmenter(), [path], tmp_path / "alone", ["labels"]).failed == {}
    with pytest.raises(CellSegError, match="rename one") as caught:
        segment_files(segmenter(), paths, tmp_path / "out", ["labels"])
    assert all(str(path) in str(caught.value) for path in paths)
    assert not (tmp_path / "out").exists()
    rows = "".join(f"{path.stem},1 3,96,96,cort\n" for path in paths)
    (tmp_path / "truth.csv").write_text("id,annotation,width,height,cell_type\n" + rows)
    words = ("dataset", "--ground-truth", tmp_path / "truth.csv", "--output", tmp_path / "out", "--images", *paths)
    code, said = call_tool("visualize", *words)
    assert code == 2
    assert "rename one" in said
    assert not (tmp_path / "out").exists()


def test_an_image_called_as_the_sheet_is_refused(tmp_path, call_tool):
    write_image(tmp_path / "in/Sheet.png", 0)
    (tmp_path / "truth.csv").write_text("id,annotation,width,height,cell_type\nSheet,1 3,96,96,cort\n")
    words = (
        "dataset",
        "--ground-truth",
        tmp_path / "truth.csv",
        "--output",
        tmp_path / "out",
        "--images",
        tmp_path / "in",
    )
    code, said = call_tool("visualize", *words)
    assert code == 2
    assert "the result of" in said
    assert "rename the image" in said


TWICE = """
import os, sys
from pathlib import Path
from cellseg_d2.inference.batch import segment_files
from cellseg_d2.inference.classical import ClassicalSegmenter

class Waiting(ClassicalSegmenter):
    def segment(self, image, **options):
        print("begun by", os.getpid(), flush=True)
        sys.stdin.readline()
        return super().segment(image, **options)

segment_files(Waiting("otsu", least_area=9), [Path(sys.argv[1])], sys.argv[2], ["csv", "labels"])
"""


def test_two_batches_do_not_mix(tmp_path):
    first, second = write_image(tmp_path / "a.png", 0), write_image(tmp_path / "b.png", 1)
    out = tmp_path / "out"
    command = [*quick_python(), "-c", TWICE, str(first), str(out)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        begun, number = other.stdout.readline().rsplit(maxsplit=1)
        assert begun == "begun by"
        with pytest.raises(CellSegError, match=f"process {number} is writing to"):
            segment_files(segmenter(), [second], out, ["csv", "labels"])
    finally:
        other.communicate("\n")
    assert other.returncode == 0
    assert {path.name for path in out.rglob("*") if path.is_file()} == {"cells.csv", "a_labels.tif"}
    segment_files(segmenter(), [second], out, ["csv", "labels"])


def test_images_without_cells_are_in_the_table_of_images(tmp_path):
    """Here with the names that would hide others: a class is called as a column, an image as a formula."""
    counts = {"a/b": {"count": 3, "image": 1}, "=b": {"count": 0, "image": 0}}
    covered = {"a/b": 0.123456, "=b": 0.0}
    items = [Item(Path("b.png"), folder="a"), Item(Path("=b"))]
    table = _images_table(
        items, [ImageResult(item.key, [], counts[item.key], covered=covered[item.key]) for item in items]
    )
    assert list(table) == ["image", "folder", "count", "confluence", "count (class)", "image (class)"]
    assert table.to_numpy().tolist() == [["b", "a", 4, 0.123456, 3, 1], ["=b", "", 0, 0, 0, 0]]
    assert csv_text(table).splitlines()[1:] == ["b,a,4,0.1235,3,1", "'=b,,0,0,0,0"]
    assert list(_images_table([], [])) == ["image", "folder", "count", "confluence"]


def test_confluence_is_the_share_of_the_labelled_pixels(tmp_path):
    write_image(tmp_path / "in/a.png", 0)
    Image.new("L", (20, 30), 7).save(tmp_path / "in/b.png")
    segment_files(segmenter(), find_images(tmp_path / "in"), tmp_path / "out", ["images", "labels"])
    table = pd.read_csv(tmp_path / "out/images.csv", keep_default_na=False)
    assert table["image"].tolist() == ["a", "b"]
    assert table["folder"].tolist() == ["", ""]
    labels = [tifffile.imread(tmp_path / f"out/labels/{name}_labels.tif") for name in "ab"]
    assert table["count"].tolist() == [image.max() for image in labels]
    assert table["count"].tolist()[1] == 0
    assert table["confluence"].tolist() == pytest.approx([(image > 0).mean() for image in labels], rel=1e-3)


def test_equal_names_in_different_folders_stay_apart_and_folders_are_mirrored(tmp_path):
    places = ["p1/day 1/a", "p2/a", "a", "p2/b"]
    for seed, place in enumerate(places):
        write_image(tmp_path / f"in/{place}.png", seed, count=seed + 1)
    folders = find_inputs([tmp_path / "in"], recursive=True)
    out, kinds = tmp_path / "out", ["labels", "overlay", "csv", "images", "submission", "coco"]
    result = segment_files(segmenter(), list(folders), out, kinds, folders=folders)
    assert set(result.counts) == set(places)
    for kind, ending in (("labels", "_labels.tif"), ("overlay", "_overlay.png")):
        found = {path.relative_to(out / kind).as_posix() for path in (out / kind).rglob(f"*{ending}")}
        assert found == {f"{place}{ending}" for place in places}
    images = pd.read_csv(out / "images.csv", keep_default_na=False)
    keys = [f"{row.folder}/{row.image}".lstrip("/") for row in images.itertuples()]
    assert dict(zip(keys, images["count"], strict=True)) == {key: own["cell"] for key, own in result.counts.items()}
    cells = pd.read_csv(out / "cells.csv", keep_default_na=False)
    assert cells.groupby(["folder", "image"]).size().to_dict() == {
        tuple(key.rpartition("/")[::2]): own["cell"] for key, own in result.counts.items()
    }
    assert set(pd.read_csv(out / "submission.csv")["id"]) == set(places)
    assert {image["source_id"] for image in json.loads((out / "coco.json").read_text())["images"]} == set(places)
    assert not result.older

    again = segment_files(segmenter(), list(folders)[1:], out, ["labels"], folders=folders)
    left = out / "labels" / f"{next(iter(result.counts))}_labels.tif"
    assert left in again.older, "that of an image that is not among these"


def test_ids_are_names_alone_where_these_differ(tmp_path):
    for place in ("p1/a", "p2/b"):
        write_image(tmp_path / f"in/{place}.png", 1)
    folders = find_inputs([tmp_path / "in/p1", tmp_path / "in/p2"])
    assert list(folders.values()) == ["p1", "p2"]
    segment_files(segmenter(), list(folders), tmp_path / "out", ["submission"], folders=folders)
    assert set(pd.read_csv(tmp_path / "out/submission.csv")["id"]) == {"a", "b"}


def test_names_that_some_system_takes_for_one_are_refused_within_a_folder_only(tmp_path):
    for place in ("p1/a", "p2/A", "P1/b"):
        write_image(tmp_path / f"in/{place}.png", 1)
    folders = find_inputs([tmp_path / "in"], recursive=True)
    check_distinct(folders, folders=folders.values())
    write_image(tmp_path / "in/P1/A.png", 1)
    folders = find_inputs([tmp_path / "in"], recursive=True)
    with pytest.raises(CellSegError, match="rename one"):
        segment_files(segmenter(), list(folders), tmp_path / "out", ["labels"], folders=folders)


@pytest.mark.parametrize("ending", ["_masks", "", ".seg"])
def test_files_end_as_asked_for(tmp_path, ending):
    path = write_image(tmp_path / "a.png", 0)
    segment_files(segmenter(), [path], tmp_path / "out", ["labels", "geojson", "rois"], ending=ending)
    files = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert files == {f"labels/a{ending}.tif", f"geojson/a{ending}.geojson", f"rois/a{ending}.zip"}
