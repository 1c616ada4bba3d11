"""See, correct, retrain in a real viewer, with the smallest network."""

import os
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from cellseg_d2.correction.project import Project
from cellseg_d2.weights.model_folder import find_model
from tests.discs import disc_image, write_untrained_run

SIZE = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("model")
    known = ["INPUT.CELL_DIAMETER", "20.0", "INPUT.ZOOM_TEST", "1.0", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    return write_untrained_run(folder, repository / "configs/quickstart/instant_test.yaml", known)


@pytest.fixture
def project(tmp_path, model):
    rng = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), disc_image(rng, SIZE, 4, 0)[0])
    return Project.open(tmp_path / "project", tmp_path / "images", str(model))


@pytest.fixture
def opened(qt, project, until):
    from cellseg_d2.napari_plugin.widget import open_viewer

    viewer, widget = open_viewer(project, show=False)
    until(lambda: widget.segment.run.isEnabled() and "cells" in viewer.layers)
    yield viewer, widget
    until(lambda: widget.segment.run.isEnabled() and widget.correct.next.isEnabled())
    viewer.close()


def test_segment_paint_save_train_and_go_on(opened, project, until):
    from cellseg_d2.napari_plugin.correcting import MARKED, REGION

    viewer, widget = opened
    segment, correct, train = widget.segment, widget.correct, widget.train
    assert correct.name == "a"
    assert correct.images.currentText() == "a"
    layer = viewer.layers["cells"]
    found = layer.data.copy()
    count = len(np.unique(found)) - 1
    assert count == len(segment.segmentation) > 0
    assert layer.features["index"].tolist() == list(range(count + 1))
    assert layer.features["area_px"][1:].tolist() == np.bincount(found.ravel())[1:].tolist()
    assert segment.diameter.value() == pytest.approx(
        segment.segmentation.measure()["equivalent_diameter_px"].median(), abs=0.05
    )

    # Thresholds work on what was detected; the network is not asked.
    looks = segment._looks
    segment.score.setValue(100)
    until(lambda: layer.data.max() == 0)
    assert len(layer.features) == 1
    segment.score.setValue(10)
    until(lambda: layer.data.max() > 0)
    assert np.array_equal(layer.data, found)
    segment._params = replace(segment._params, min_area_share=1.0)  # nothing below the median
    segment.apply_thresholds()
    assert 0 < layer.data.max() < count
    segment.area.setValue(29)  # whoever names an area gets all cells from there on
    until(lambda: layer.data.max() == count)
    assert segment._looks == looks

    # What was painted stays, whatever is done to the thresholds.
    layer.selected_label = count + 1
    layer.brush_size = 9
    layer.paint((48, 48), count + 1)
    painted = layer.data.copy()
    assert (painted == count + 1).sum() > 40
    segment.score.setValue(100)
    segment.apply_thresholds()
    assert np.array_equal(layer.data, painted)
    assert not segment.score.isEnabled()

    correct.save_corrections()
    saved = project.last("a")
    assert np.array_equal(saved.labels, painted)
    assert saved.changes.added >= 1
    assert saved.counts is None
    assert "1 of 2" in correct.where.text()
    correct.counts.setCurrentText(MARKED)
    viewer.layers[REGION].add_rectangles(np.array([[[0, 0], [0, 59], [79, 59], [79, 0]]]))
    correct.save_corrections()
    saved = project.last("a")
    assert saved.number == 2
    assert (saved.changes.kept, saved.changes.added, saved.changes.removed) == (len(np.unique(painted)) - 1, 0, 0)
    assert saved.counts[:79, :59].all()
    assert not saved.counts[:, 61:].any()

    train.iterations.setValue(2)
    train.score.setChecked(False)
    train.train()
    assert not train.run.isEnabled()
    until(lambda: train.process is None)
    assert "the new model" in train.said.toPlainText()
    assert train.losses()["total_loss"].notna().any()
    [file] = project.folder.glob("runs/*/*/losses.csv")
    read = len(train.losses())
    with open(file, "a") as half:
        half.write("9,-")
    assert len(train.losses()) == read, "what is half-written is not drawn"
    assert segment.model.currentText() == str(project.folder) == project.model
    assert find_model(project.folder) == project.folder
    assert (project.folder / "models/0001/model.safetensors").is_file()

    correct.next_image()
    until(lambda: correct.name == "b" and segment.run.isEnabled() and "cells" in viewer.layers)
    assert [own.name for own in viewer.layers] == ["b", "cells"]
    correct.show_image("a")
    assert np.array_equal(viewer.layers["cells"].data, painted)


def test_mistakes_are_told_in_a_sentence(opened, project, monkeypatch):
    from cellseg_d2.napari_plugin import correcting, segmenting

    viewer, widget = opened
    said = []
    monkeypatch.setattr(correcting, "show_error", said.append)
    monkeypatch.setattr(segmenting, "show_error", said.append)
    widget.correct.counts.setCurrentText(correcting.MARKED)
    widget.correct.save_corrections()
    viewer.layers.clear()
    widget.correct.save_corrections()
    widget.segment.segment()
    assert [text.partition(":")[0] for text in said] == [
        "draw what counts into the layer 'region that counts', or choose 'the whole image'",
        "there is no layer 'cells' to save",
        "there is no image to segment",
    ]
    assert project.corrected == []


def test_a_long_look_can_be_stopped(opened, until, monkeypatch):
    from cellseg_d2.napari_plugin import segmenting

    viewer, widget = opened
    told = []
    monkeypatch.setattr(segmenting, "show_info", told.append)
    before = viewer.layers["cells"].data.copy()
    cancelled, begin = threading.Event(), widget.segment._before_look
    monkeypatch.setattr(widget.segment, "_before_look", lambda: (cancelled.wait(60), begin()))
    widget.segment.segment()
    widget.segment.cancel()
    cancelled.set()  # else its first look might be over by now
    until(lambda: widget.segment.run.isEnabled())
    assert told == ["stopped after 0 looks at the image"]
    assert np.array_equal(viewer.layers["cells"].data, before)


def test_another_image_does_not_get_the_cells_of_the_one_before(opened, until):
    viewer, widget = opened
    widget.segment.segment()
    widget.correct.show_image("b")  # which is segmented when the other has stopped
    assert [layer.name for layer in viewer.layers] == ["b"]
    until(lambda: widget.segment.run.isEnabled() and "cells" in viewer.layers)
    assert widget.segment.segmentation.name == "b"


def test_a_stack_is_segmented_plane_by_plane(opened, until):
    viewer, widget = opened
    viewer.add_image(np.stack([np.zeros((SIZE, SIZE), np.uint8), viewer.layers["a"].data]), name="stack")
    widget.segment.image.setCurrentText("stack")
    viewer.dims.set_current_step(0, 1)
    assert np.array_equal(widget.segment.plane()[1], viewer.layers["a"].data)
    widget.segment.find_diameter.setChecked(False)
    widget.segment.diameter.setValue(10)
    widget.segment.segment()
    until(lambda: widget.segment.run.isEnabled())
    assert viewer.layers["cells"].data.shape == (SIZE, SIZE)
    assert widget.segment.diameter.value() == 10


def test_the_display_is_a_real_one(display, qt):
    assert os.environ["QT_QPA_PLATFORM"] == "offscreen"
    assert qt.platformName() == "offscreen"
