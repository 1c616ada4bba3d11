"""The simulator: layout, reproducibility, and figures close to those of the published annotations."""

import csv
import os
import re
import subprocess

import cv2
import numpy as np
import pytest

from cellseg_d2.cli import make_simulated
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import kaggle_to_crop
from cellseg_d2.masks.rle import parse_kaggle_rle, run_problems
from cellseg_d2.simulation import CELL_TYPES, CULTURE_TYPES, Appearance, simulate_image, write_dataset
from cellseg_d2.simulation.curves import random_paths
from cellseg_d2.simulation.dataset import KINDS
from cellseg_d2.simulation.optics import form_image
from cellseg_d2.simulation.shapes import draw_shape
from tests.quick_python import quick_python

SMALL = {"height": 96, "width": 128, "progress": False}


def components(mask):
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def images():
    """Two whole images of each type."""
    return {t: [simulate_image(t, np.random.default_rng([k, 7])) for k in range(2)] for t in CELL_TYPES}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "data"
    summary = write_dataset(folder, images_per_type=4, test_per_type=1, seed=3, images_per_well=2, **SMALL)
    return folder, summary


@pytest.mark.parametrize("cell_type", CELL_TYPES)
def test_every_mask_is_one_tight_component_inside_the_image(images, cell_type):
    for image, masks in images[cell_type]:
        assert image.shape == (520, 704)
        assert image.dtype == np.uint8
        for crop in masks:
            x0, y0, x1, y1 = crop.box
            assert x0 >= 0
            assert y0 >= 0
            assert x1 <= 704
            assert y1 <= 520
            assert crop.mask.dtype == bool
            assert crop.tight() is crop
            assert components(crop.mask) == 1
            assert crop.area >= 30


# cells per image, median area, largest share of pixels in more than one mask; wide limits, for two images only
@pytest.mark.parametrize(
    ("cell_type", "cells", "area"),
    [("shsy5y", (60, 790), (140, 270)), ("astro", (15, 300), (450, 950)), ("cort", (8, 108), (130, 280))],
)
def test_figures_are_near_those_of_the_published_masks(images, cell_type, cells, area):
    for image, masks in images[cell_type]:
        assert cells[0] <= len(masks) <= cells[1]
        assert area[0] <= np.median([m.area for m in masks]) <= area[1]
        depth = np.zeros(image.shape, int)
        for m in masks:
            depth[m.slices] += m.mask
        assert (depth > 1).sum() <= 0.06 * (depth > 0).sum()
        assert 126 <= image.mean() <= 130
        assert 3 <= image.std() <= 25


@pytest.mark.parametrize("cell_type", CELL_TYPES)
def test_cells_are_darker_than_their_halos(images, cell_type):
    """The cue to learn from: inside a mask the picture is darker than in the frame just outside all masks."""
    for image, masks in images[cell_type]:
        foreground = np.zeros(image.shape, np.uint8)
        for m in masks:
            foreground[m.slices] |= m.mask
        inside = cv2.erode(foreground, np.ones((5, 5), np.uint8)).astype(bool)
        frame = (cv2.dilate(foreground, np.ones((3, 3), np.uint8)) - foreground).astype(bool)
        assert image[inside].mean() < 127 < image[frame].mean()


def test_same_seed_same_image_other_seed_another():
    first, again, other = (simulate_image("cort", np.random.default_rng(s), 96, 128)[0] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_density_sets_the_number_of_cells():
    look = Appearance.draw(np.random.default_rng(0))
    counts = [
        sum(len(simulate_image("astro", np.random.default_rng(k), 200, 300, density, look)[1]) for k in range(6))
        for density in (0, 0.5, 1.5)
    ]
    assert counts[0] == 0
    assert 0 < 1.5 * counts[1] < counts[2]


def test_dead_cells_change_the_image_and_not_the_truth():
    look = Appearance.draw(np.random.default_rng(0))
    clean, dirty = (
        simulate_image("astro", np.random.default_rng(3), 200, 300, 0.5, look, dead_cells) for dead_cells in (0, 40)
    )
    assert [(m.top, m.left, m.mask.tolist()) for m in clean[1]] == [(m.top, m.left, m.mask.tolist()) for m in dirty[1]]
    empty = [simulate_image("cort", np.random.default_rng(3), 200, 300, 0, look, n) for n in (0, 40)]
    assert [len(masks) for _, masks in empty] == [0, 0]
    # Each is a bright halo around dark grains: both tails of the grey values grow.
    assert np.percentile(empty[1][0], 99.5) > np.percentile(empty[0][0], 99.5) + 10
    assert np.percentile(empty[1][0], 0.5) < np.percentile(empty[0][0], 0.5) - 10


@pytest.mark.parametrize(
    "kwargs",
    [
        {"cell_type": "hela"},
        {"height": 20},
        {"width": 10_001},
        {"density": -1.0},
        {"density": np.nan},
        {"dead_cells": -1.0},
    ],
)
def test_senseless_arguments_are_refused(kwargs):
    with pytest.raises(CellSegError):
        simulate_image(**{"cell_type": "cort", "rng": np.random.default_rng(0), **kwargs})


def test_a_disc_of_thickness_is_dark_with_a_bright_frame():
    rows, columns = np.ogrid[:128, :128]
    distance = np.hypot(rows - 64, columns - 64)
    look = Appearance(focus=0.7, halo=3.0, contrast=1, noise=0.01, shading=0, debris=1, neurites=1, crowding=1)
    image = form_image((40.0 * (distance < 10)).astype(np.float32), look, np.random.default_rng(0), margin=14)
    assert image.shape == (100, 100)
    distance = distance[14:-14, 14:-14]
    assert image[(distance > 7) & (distance < 9)].mean() < 120
    assert image[(distance > 11) & (distance < 13)].mean() > 133
    assert (image[distance > 30] == 128).all()


def test_straight_paths_are_straight():
    path = random_paths(
        np.random.default_rng(0), np.array([[1.0, 2.0]]), np.array([np.pi / 2]), np.array([10.0]), steps=5, bend=0
    )
    assert np.allclose(path[0], [[1, y] for y in (2, 4, 6, 8, 10, 12)])


def test_shapes_are_tight_and_whole():
    for cell_type in CELL_TYPES:
        for seed in range(40):
            shape = draw_shape(cell_type, np.random.default_rng(seed))
            assert components(shape.mask) == 1
            assert shape.mask[0].any()
            assert shape.mask[-1].any()
            assert shape.mask[:, 0].any()
            assert shape.mask[:, -1].any()


def test_the_folder_is_in_the_competitions_layout(dataset):
    folder, summary = dataset
    train, test = read_rows(folder / "train.csv"), read_rows(folder / "test.csv")
    expected = "id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta"
    assert (folder / "train.csv").read_text().splitlines()[0] == expected
    for split, rows, images in (("train", train, 12), ("test", test, 3)):
        names = {p.stem for p in (folder / split).iterdir()}
        assert len(names) == images == summary[split]["images"]
        assert {row["id"] for row in rows} <= names
        assert len(rows) == summary[split]["cells"] > 0
        assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names)
    for row in train + test:
        assert (row["width"], row["height"]) == ("128", "96")
        assert row["cell_type"] in CELL_TYPES
        plates = r"(shsy5y\[diff\]|astros\[cereb\]|cort\[density\])"
        assert re.fullmatch(plates + r"_[A-H]\d{1,2}-[1-4]_Vessel-\d+_Ph_[1-4]", row["sample_id"])
        hours, minutes = re.fullmatch(r"(\d\d)h(\d\d)m00s", row["plate_time"]).groups()
        assert row["elapsed_timedelta"] == f"0 days {hours}:{minutes}:00"
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["sample_date"])
        assert run_problems(parse_kaggle_rle(row["annotation"]), 96, 128) == []
        assert components(kaggle_to_crop(row["annotation"], 96, 128).mask) == 1
    submission = read_rows(folder / "sample_submission.csv")
    assert {row["id"] for row in submission} == {p.stem for p in (folder / "test").iterdir()}
    assert {row["predicted"] for row in submission} == {""}
    assert "seed 3" in (folder / "README.txt").read_text()


def test_pictures_are_grey_8_bit(dataset):
    for path in dataset[0].rglob("*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.shape == (96, 128)
        assert image.dtype == np.uint8


def test_images_of_a_well_share_it_and_no_well_is_in_train_and_test(dataset):
    def wells(rows):
        groups = {}
        for row in rows:
            plate, well = row["sample_id"].split("_")[:2]
            groups.setdefault((plate, well[:-2]), set()).add(row["id"])
        return groups

    train, test = (wells(read_rows(dataset[0] / f"{split}.csv")) for split in ("train", "test"))
    assert max(len(ids) for ids in train.values()) == 2
    assert not set(train) & set(test)


def test_files_do_not_depend_on_the_number_of_processes(dataset, tmp_path):
    options = {"images_per_type": 4, "test_per_type": 1, "seed": 3, "images_per_well": 2, **SMALL}
    write_dataset(tmp_path / "again", workers=2, **options)
    assert files_of(tmp_path / "again") == files_of(dataset[0])


def test_another_seed_gives_other_images(dataset, tmp_path):
    write_dataset(tmp_path / "other", images_per_type=1, test_per_type=0, seed=4, **SMALL)
    ours, theirs = files_of(tmp_path / "other"), files_of(dataset[0])
    assert not {n for n in ours if n.endswith(".png")} & set(theirs)


def test_counts_by_type(tmp_path):
    write_dataset(tmp_path / "d", images_per_type={"cort": 2}, test_per_type={"astro": 1}, density=2.0, **SMALL)
    assert {r["cell_type"] for r in read_rows(tmp_path / "d" / "train.csv")} == {"cort"}
    assert len(list((tmp_path / "d" / "test").iterdir())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_have_their_types(tmp_path, kind):
    summary = write_dataset(tmp_path / "d", kind=kind, images_per_type=2, test_per_type=0, seed=3, **SMALL)
    assert summary["train"]["images"] == 2 * len(KINDS[kind]) == len(list((tmp_path / "d" / "train").iterdir()))
    rows = read_rows(tmp_path / "d" / "train.csv")
    assert {row["cell_type"] for row in rows} <= set(KINDS[kind])
    assert {row["cell_type"] for row in rows} & set(CULTURE_TYPES) or kind == "neurons"
    for row in rows:
        assert run_problems(parse_kaggle_rle(row["annotation"]), 96, 128) == []


def test_types_look_the_same_in_every_kind(tmp_path):
    """The mixed data set is the two others together."""
    for kind in KINDS:
        write_dataset(tmp_path / kind, kind=kind, images_per_type=1, test_per_type=0, seed=3, **SMALL)
    images = {kind: {p.name: p.read_bytes() for p in (tmp_path / kind / "train").iterdir()} for kind in KINDS}
    assert images["mixed"] == images["neurons"] | images["cultures"]


def test_cultures_without_density_are_fields_without_cells(tmp_path):
    summary = write_dataset(tmp_path / "d", kind="cultures", images_per_type=1, test_per_type=0, density=0, **SMALL)
    assert summary["train"] == {"images": len(CULTURE_TYPES), "cells": 0}
    assert read_rows(tmp_path / "d" / "train.csv") == []


def test_the_tool_knows_the_kinds():
    assert make_simulated.KINDS == KINDS


def test_only_simulated_folders_are_overwritten(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    options = {"images_per_type": {"cort": 1}, "test_per_type": 0, **SMALL}
    write_dataset(folder, seed=1, **options)
    before = files_of(folder)
    with pytest.raises(CellSegError, match="--overwrite"):
        write_dataset(folder, seed=2, **options)
    assert files_of(folder) == before
    write_dataset(folder, seed=2, overwrite=True, **options)
    assert files_of(folder) != before
    (folder / "README.txt").write_text("Simulated phase-contrast images of cells\n")  # as older versions wrote
    write_dataset(folder, seed=1, overwrite=True, **options)
    assert files_of(folder) == before
    (folder / "README.txt").unlink()
    with pytest.raises(CellSegError, match="another folder"):
        write_dataset(folder, overwrite=True, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["d"], "nothing half-written is left"


@pytest.mark.parametrize("exists", [False, True])
def test_a_link_stays_a_link_to_what_is_overwritten(tmp_path, exists):
    target, link = tmp_path / "disk" / "d", tmp_path / "d"
    link.symlink_to(target)
    options = {"images_per_type": {"cort": 1}, "test_per_type": 0, **SMALL}
    if exists:
        write_dataset(target, seed=1, **options)
        before = files_of(target)
    write_dataset(link, seed=2, overwrite=True, **options)
    assert link.is_symlink()
    assert link.readlink() == target
    assert "train.csv" in files_of(target)
    assert not exists or files_of(target) != before
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["d"]


@pytest.mark.parametrize(
    "options",
    [
        {"images_per_type": 0, "test_per_type": 0},
        {"images_per_type": -1},
        {"images_per_type": {"hela": 1}},
        {"images_per_type": {"colony": 1}},
        {"kind": "tissues"},
        {"seed": -1},
        {"height": 10},
        {"density": -0.5},
        {"dead_cells": -1.0},
        {"dead_cells": np.nan},
        {"kind": "cultures", "dead_cells": 5.0},
        {"images_per_well": 0},
        {"height": 10_001},
        {"workers": 0},
    ],
)
def test_senseless_data_sets_are_refused(tmp_path, options):
    with pytest.raises(CellSegError):
        write_dataset(tmp_path / "d", **{**SMALL, **options})
    assert list(tmp_path.iterdir()) == []


def run_tool(repository, *arguments):
    command = [*quick_python(), str(repository / "tools" / "make_simulated.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}, check=False)


def test_the_tool_writes_and_names_its_errors(repository, tmp_path):
    arguments = ("--output", tmp_path / "d", "--images-per-type", 1, 0, 0, "--test-per-type", 0, "--size", 128, 96)
    done = run_tool(repository, *arguments)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "d" / "train").iterdir())) == 1
    assert "--images-per-type 1 0 0" in (tmp_path / "d" / "README.txt").read_text()
    again = run_tool(repository, *arguments)
    assert again.returncode == 2
    assert re.fullmatch(r"error: .*--overwrite.*\n", again.stderr)
    assert run_tool(repository, "--output", tmp_path / "e", "--images-per-type", 1, 2).returncode == 2


class Bars:
    """A source of outlines: long bars of one type, short ones of the other."""

    type_names = ("long_one", "astro")

    def draw(self, rng, count, cell_type=None):
        lengths = rng.integers(30, 36, count) if cell_type == "long_one" else rng.integers(8, 12, count)
        return [np.ones((6, length), bool) for length in lengths]


def test_outlines_come_from_a_source_of_shapes(tmp_path):
    options = {"images_per_type": 2, "test_per_type": 1, "seed": 5, "images_per_well": 1, **SMALL}
    summary = write_dataset(tmp_path / "a", shapes=Bars(), **options)
    assert summary["train"]["images"] == 4
    rows = read_rows(tmp_path / "a/train.csv")
    assert {row["cell_type"] for row in rows} == {"long_one", "astro"}
    for row in rows:
        crop = kaggle_to_crop(row["annotation"], 96, 128)
        h, w = crop.mask.shape
        assert h <= 6
        assert w <= (35 if row["cell_type"] == "long_one" else 11)
        assert components(crop.mask) == 1
    widest = max(kaggle_to_crop(r["annotation"], 96, 128).mask.shape[1] for r in rows if r["cell_type"] == "long_one")
    assert widest >= 25
    assert all(row["sample_id"].count("_") == 4 for row in rows)
    write_dataset(tmp_path / "b", shapes=Bars(), workers=2, **options)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    with pytest.raises(CellSegError, match=r"'cort' cannot be simulated; choose from long_one, astro"):
        write_dataset(tmp_path / "c", shapes=Bars(), **(options | {"images_per_type": {"cort": 1}}))
    empty = write_dataset(tmp_path / "d", shapes=Bars(), density=0, **options)
    assert empty["train"]["cells"] == 0
