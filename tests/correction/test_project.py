"""Projects of corrections: every save is kept, whole, and means what was painted."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg_d2.correction.project import Changes, Project, check_folder, compare
from cellseg_d2.errors import CellSegError

SHAPE = 20, 30


def square(top, left, size, number=1, onto=None):
    labels = np.zeros(SHAPE, np.uint16) if onto is None else onto.copy()
    labels[top : top + size, left : left + size] = number
    return labels


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "c[1]")):
        tifffile.imwrite(folder / f"{name}.tif", np.full(SHAPE, 1000 * number + 7, np.uint16))
    return folder


@pytest.fixture
def project(tmp_path, images):
    return Project.open(tmp_path / "project", images)


def test_an_image_whose_copy_is_gone_is_named(project):
    project.save("a", square(2, 3, 5))
    shutil.rmtree(project.folder / "images")
    with pytest.raises(CellSegError, match=r"images lacks the image 'a'.*put it back"):
        project.records()
    project.save("a", square(2, 3, 5))
    assert len(project.records()) == 1


def test_every_save_is_kept_and_the_last_counts(project, images, tmp_path):
    assert project.names == project.uncorrected == ["a", "b", "c[1]"]
    assert project.corrected == []
    first = project.save("a", square(2, 3, 5), before=np.zeros(SHAPE, int), notes={"model": "cells"})
    assert (first.number, first.changes) == (1, Changes(0, 0, 1, 0))
    second = project.save("a", square(12, 20, 4, 9, onto=square(2, 3, 6)))
    assert (second.number, second.changes) == (2, Changes(0, 1, 1, 0))
    again = Project.open(tmp_path / "project")  # the folder of the images is known
    assert again.corrected == ["a"]
    assert again.uncorrected == ["b", "c[1]"]
    assert np.array_equal(again.load("a", 1).labels, first.labels)
    assert np.array_equal(again.last("a").labels, second.labels)
    assert again.last("b") is None
    record = json.loads((tmp_path / "project/corrections/a/0001/save.json").read_text())
    assert record["model"] == "cells"
    assert record["added"] == record["cells"] == 1
    # The image itself is kept as it was, whatever becomes of it.
    (images / "a.tif").unlink()
    assert tifffile.imread(Project.open(tmp_path / "project").image_path("a")).max() == 7
    (cells,) = (record.cells for record in again.records())
    assert sorted(cell.crop.area for cell in cells) == [16, 36]


def test_names_may_hold_what_patterns_are_made_of(project):
    project.save("c[1]", square(0, 0, 2))
    assert project.corrected == ["c[1]"]
    assert project.record("c[1]").file_name == "c[1].tif"


def test_only_what_counts_is_learnt_from(project):
    labels = square(2, 2, 6, 1, onto=square(2, 12, 6, 2, onto=square(10, 20, 6, 3)))
    counts = np.zeros(SHAPE, bool)
    counts[:, :14] = True  # all of the first cell, a third of the second, nothing of the third
    project.save("b", labels, counts=counts)
    record = project.record("b")
    assert [cell.crop.box for cell in record.cells] == [(2, 2, 8, 8)]
    assert np.array_equal(record.ignore.to_full(*SHAPE), ~counts)
    counts[:, :16] = True
    record = (project.save("b", labels, counts=counts), project.record("b"))[1]
    assert [cell.crop.box for cell in record.cells] == [(2, 2, 8, 8), (12, 2, 18, 8)]
    # The part of a cell that reaches out of it is known.
    assert record.ignore.to_full(*SHAPE)[4, 16:18].sum() == 0
    project.save("b", labels, counts=np.ones(SHAPE, bool))
    assert project.record("b").ignore is None


def test_what_was_left_by_a_killed_save_is_no_save(project, tmp_path):
    project.save("a", square(2, 3, 5))
    (tmp_path / "project/corrections/a/0002").mkdir()  # without save.json
    assert project.last("a").number == 1
    assert project.save("a", square(2, 3, 6)).number == 2
    assert project.last("a").labels.sum() == 36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": np.zeros((4, 4), int)}, "labels of a are of 4 × 4 pixels, its image of 20 × 30"),
        ({"labels": np.zeros(SHAPE)}, "2-D array of integers"),
        ({"labels": np.full(SHAPE, 2**32)}, "labels of a go up to 4294967296"),
        ({"labels": square(0, 0, 1), "counts": np.ones((3, 3), bool)}, "region that counts of a"),
        ({"labels": square(0, 0, 1), "counts": np.zeros(SHAPE, bool)}, "nothing of a counts"),
    ],
)
def test_what_does_not_fit_is_refused(project, arguments, message):
    with pytest.raises(CellSegError, match=message):
        project.save("a", **arguments)
    assert project.corrected == []


def test_other_folders_are_left_alone(tmp_path, images, project):
    with pytest.raises(CellSegError, match="name the folder of your images with --images"):
        Project.open(tmp_path / "new")
    with pytest.raises(CellSegError, match="holds other files"):
        Project.open(images, images)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CellSegError, match="no image"):
        Project.open(tmp_path / "new", tmp_path / "empty")
    # A folder in which only a model was trained can become a project, a training of another kind cannot.
    for name in ("config.yaml", "model.safetensors", "runs"):
        (tmp_path / "trained").mkdir(exist_ok=True)
        (tmp_path / "trained" / name).touch()
    assert Project.open(tmp_path / "trained", images).model == str(tmp_path / "trained")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model_best.pth").touch()
    with pytest.raises(CellSegError, match=r"holds other files, such as model_best\.pth"):
        check_folder(tmp_path / "run")
    (tmp_path / "project/project.json").write_text('{"format": "another"}')
    with pytest.raises(CellSegError, match="no project of corrections"):
        Project.open(tmp_path / "project")
    with pytest.raises(CellSegError, match="no image 'd'"):
        project.image_path("d")


def test_images_that_have_moved_are_named_anew(tmp_path, images, project):
    project.save("a", square(2, 3, 5))
    images.rename(tmp_path / "moved")
    with pytest.raises(CellSegError, match="expects its images"):
        Project.open(tmp_path / "project")
    assert Project.open(tmp_path / "project", tmp_path / "moved").corrected == ["a"]
    assert Project.open(tmp_path / "project").uncorrected == ["b", "c[1]"]


LABELS = arrays(np.uint8, (6, 7), elements=st.integers(0, 4))


@given(LABELS, LABELS, st.permutations(range(1, 5)))
def test_changes_add_up_and_numbers_do_not_matter(before, after, order):
    changes = compare(before, after)
    assert changes.kept + changes.changed + changes.added == len(np.unique(after[after > 0]))
    assert changes.kept + changes.changed + changes.removed == len(np.unique(before[before > 0]))
    renamed = np.array([0, *order])[after]
    assert compare(before, renamed) == changes
    back = compare(after, before)
    assert (back.kept, back.changed, back.added) == (changes.kept, changes.changed, changes.removed)
    assert compare(after, renamed).kept == len(np.unique(after[after > 0]))
