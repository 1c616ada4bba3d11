"""Stacks, plane by plane: each plane is an image of its own, in tables with its frame, and is resumed by itself."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellseg_d2 import cli
from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.lazy import open_stored
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.inference import items
from cellseg_d2.inference.batch import segment_files
from cellseg_d2.inference.classical import ClassicalSegmenter
from cellseg_d2.predictions.truth import read_truth
from tests.discs import disc_image

# Cells by frame; the other channel of each is blank.
CELLS = [3, 0, 5]
FRAMES = [disc_image(np.random.default_rng(n), 96, n, 0)[0] if n else np.full((96, 96), 128, np.uint8) for n in CELLS]
SAVED = ["labels", "csv", "images", "coco", "submission"]


def segmenter():
    return ClassicalSegmenter("otsu", least_area=9)


@pytest.fixture
def movie(tmp_path):
    """Two channels, cells in the second one, and a single image beside."""
    frames = np.stack(FRAMES)
    path = tmp_path / "in" / "movie.tif"
    path.parent.mkdir()
    channels = np.stack([0 * frames, frames], axis=1)
    tifffile.imwrite(path, channels, imagej=True, resolution=(2, 2), metadata={"axes": "TCYX", "unit": "um"})
    tifffile.imwrite(path.parent / "one.tif", FRAMES[0])
    return path


def test_a_batch_with_a_stack(movie, tmp_path):
    result = segment_files(segmenter(), [movie], tmp_path / "out", SAVED, stack=True, channel=1)
    names = ["movie_t000", "movie_t001", "movie_t002"]
    assert {name: sum(counts.values()) for name, counts in result.counts.items()} == dict(
        zip(names, CELLS, strict=True)
    )
    images = pd.read_csv(tmp_path / "out/images.csv", keep_default_na=False)
    shares = images.pop("confluence")
    assert images.to_dict("list") == {"image": ["movie"] * 3, "folder": [""] * 3, "frame": [0, 1, 2], "count": CELLS}
    assert [share > 0 for share in shares] == [count > 0 for count in CELLS]
    cells = pd.read_csv(tmp_path / "out/cells.csv")
    assert list(cells)[:4] == ["image", "folder", "frame", "label"]
    assert cells.groupby("frame").size().to_dict() == {0: 3, 2: 5}
    assert set(cells["image"]) == {"movie"}
    assert "area_um2" in cells, "the planes have the pixel size of the file"
    for name, frame in zip(names, FRAMES, strict=True):
        labels = tifffile.imread(tmp_path / f"out/labels/{name}_labels.tif")
        assert np.array_equal(labels, segmenter().segment(frame).labels)
    coco = read_coco(tmp_path / "out/coco.json")
    assert list(coco.image_names().values()) == names
    assert [(entry["file_name"], entry["frame"]) for entry in coco.images.values()] == [
        ("movie.tif", n) for n in range(3)
    ]
    ids = pd.read_csv(tmp_path / "out/submission.csv")["id"]
    assert list(dict.fromkeys(ids)) == names


def test_single_images_among_stacks(movie, tmp_path):
    tifffile.imwrite(movie, np.stack(FRAMES), imagej=True, metadata={"axes": "ZYX"})
    paths = [movie, movie.with_name("one.tif"), movie.with_name("damaged.tif")]
    paths[2].write_bytes(b"II*\0")
    result = segment_files(segmenter(), paths, tmp_path / "out", ["labels", "images"], stack=True)
    assert list(result.counts) == ["movie_z000", "movie_z001", "movie_z002", "one"]
    assert pd.read_csv(tmp_path / "out/images.csv")["frame"].tolist() == [0, 1, 2, 0]
    assert list(result.failed) == [paths[2]]
    result = segment_files(segmenter(), paths[:2], tmp_path / "flat", ["labels", "images"], projection="max")
    assert list(result.counts) == ["movie", "one"]
    assert "frame" not in pd.read_csv(tmp_path / "flat/images.csv")
    expected = segmenter().segment(np.max(FRAMES, axis=0)).labels
    assert np.array_equal(tifffile.imread(tmp_path / "flat/labels/movie_labels.tif"), expected)


def test_a_stack_is_resumed_where_it_was_left(movie, tmp_path):
    stopping, seen = segmenter(), []
    segment = stopping.segment

    def stop_once(image, **options):
        seen.append(options["frame"])
        if seen == [0, 1]:
            raise KeyboardInterrupt
        return segment(image, **options)

    stopping.segment = stop_once
    options = {"stack": True, "channel": 1}
    with pytest.raises(KeyboardInterrupt):
        segment_files(stopping, [movie], tmp_path / "out", SAVED, **options)
    result = segment_files(stopping, [movie], tmp_path / "out", SAVED, resume=True, **options)
    assert (result.resumed, seen) == (1, [0, 1, 1, 2])
    segment_files(segmenter(), [movie], tmp_path / "at once", SAVED, **options)
    files = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "at once" / file).read_bytes()


@pytest.mark.parametrize("file", ["coco.json", "labels"])
def test_results_of_a_stack_come_back(movie, tmp_path, file):
    segment_files(segmenter(), [movie], tmp_path / "out", ["coco", "labels", "submission"], stack=True, channel=1)
    truth = read_truth(tmp_path / "out" / file)
    assert {name: len(image.masks) for name, image in truth.images.items()} == {
        f"movie_t{frame:03d}": count for frame, count in enumerate(CELLS)
    }
    out = tmp_path / "back"
    with pytest.raises(SystemExit) as ended:
        cli.main(["convert", str(tmp_path / "out" / file), "--to", "labels", "--output", str(out)])
    assert not ended.value.code
    for name in truth.images:
        again = tifffile.imread(out / f"labels/{name}_labels.tif")
        assert np.array_equal(again > 0, tifffile.imread(tmp_path / f"out/labels/{name}_labels.tif") > 0)


def test_a_plane_may_not_be_called_as_another_image(movie, tmp_path):
    other = movie.with_name("movie_t001.tif")
    tifffile.imwrite(other, FRAMES[0])
    with pytest.raises(CellSegError, match="would share the image id 'movie_t001'"):
        segment_files(segmenter(), [movie, other], tmp_path / "out", ["labels"], stack=True, channel=1)
    assert not (tmp_path / "out").exists()


def test_a_stack_is_opened_twice_however_many_planes_it_has(movie, tmp_path, monkeypatch):
    """Once to count its planes, once to read them: to understand a file of many pages takes longer than a plane."""
    opened = []
    monkeypatch.setattr(
        items, "open_stored", lambda path, **options: opened.append(path) or open_stored(path, **options)
    )
    segment_files(segmenter(), [movie], tmp_path / "out", ["images"], stack=True, channel=1)
    assert opened == [movie, movie]


def test_planes_in_python(movie):
    planes = segmenter().segment(movie, stack=True, channel="1")
    assert [len(plane) for plane in planes] == CELLS
    assert [plane.name for plane in planes] == ["movie_t000", "movie_t001", "movie_t002"]
    table = pd.concat([plane.measure() for plane in planes])
    assert table.groupby("frame").size().to_dict() == {0: 3, 2: 5}
    assert [plane.pixel_size for plane in planes] == [PixelSize(0.5, 0.5)] * 3
    last = segmenter().segment(movie, frame=2, channel=1)
    assert (last.name, last.frame, len(last)) == ("movie_t002", 2, 5)
    with pytest.raises(CellSegError, match="has 3 planes, of which none is number 3"):
        segmenter().segment(movie, frame=3, channel=1)
    by_hand = segmenter().segment(np.stack(FRAMES), stack=True, name="a")
    assert [plane.name for plane in by_hand] == ["a_000", "a_001", "a_002"]
    assert "frame" not in segmenter().segment(FRAMES[0]).measure()
