"""The box "Segment": a model on the image that is shown, its thresholds live, its cells as a labels layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from napari.layers import Image, Labels
from napari.qt.threading import FunctionWorker
from napari.utils.notifications import show_error, show_info
from napari.viewer import Viewer
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSlider,
    QSpinBox,
    QWidget,
)

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.napari_plugin.background import Stopped, in_background
from cellseg_d2.postprocess.params import MIN_AREAS_ALONE, PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from cellseg_d2.tiling.grid import LEAST_TILE
from cellseg_d2.weights.model_folder import shipped_models

# Milliseconds that a threshold must rest before cells are made anew.
_REST = 120
CELLS = "cells"


class SegmentBox(QGroupBox):
    """Segments the image of a viewer.

    Attributes:
        segmentation: the last result, before thresholds were moved; None where there is none.
        segmented: a signal with the layer of the cells, whenever there is a new result.
    """

    segmented = Signal(object)

    def __init__(self, viewer: Viewer):
        super().__init__("Segment")
        self._viewer = viewer
        self._models: dict[str, CellSegmenter] = {}
        self._worker: FunctionWorker | None = None
        self._stop = self._again = False
        self._layer: Labels | None = None
        self._shown: np.ndarray | None = None
        self._looks = 0
        self._params: PostprocessParams | None = None
        self.segmentation: Segmentation | None = None

        self.image = QComboBox()
        self.model = QComboBox()
        self.model.addItems(shipped_models())
        self.model.setCurrentText("cells")
        self.model.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        folder = QPushButton("Folder …")
        folder.setToolTip("A model of your own: the folder of a project, of a training, or of cellseg-d2 export-model")
        folder.clicked.connect(self._choose_folder)
        self.find_diameter = QCheckBox("find")
        self.find_diameter.setChecked(True)
        self.find_diameter.setToolTip("Look at several sizes and take the best; the diameter found is then shown")
        self.diameter = QDoubleSpinBox()
        self.diameter.setDecimals(1)
        self.diameter.setRange(0.0, 1000.0)
        self.diameter.setSuffix(" px")
        self.diameter.setEnabled(False)
        self.find_diameter.toggled.connect(lambda on: self.diameter.setEnabled(not on))
        self.tile = QSpinBox()
        self.tile.setRange(0, 8192)
        self.tile.setSingleStep(128)
        self.tile.setSpecialValueText("as the model")
        self.tile.setSuffix(" px")
        self.tile.setToolTip("Side of the windows in which large images are looked at")
        self.run = QPushButton("Segment")
        self.run.clicked.connect(self.segment)
        self.stop = QPushButton("Stop")
        self.stop.setEnabled(False)
        self.stop.clicked.connect(self.cancel)
        self.progress = QProgressBar()
        self.progress.setVisible(False)

        self.score, score_row = _slider(0, 100, lambda value: f"{value / 100:.2f}")
        self.mask, mask_row = _slider(1, 99, lambda value: f"{value / 100:.2f}")
        self.area = QSpinBox()
        self.area.setRange(0, 1_000_000)
        self.area.setSuffix(" px")
        self.vote = QCheckBox("an image holds one type")
        self.said = QLabel()
        self.said.setWordWrap(True)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.apply_thresholds)
        for signal in (self.score.valueChanged, self.mask.valueChanged, self.area.valueChanged, self.vote.toggled):
            signal.connect(self._rest)

        form = QFormLayout(self)
        form.addRow("image", self.image)
        form.addRow("model", row(self.model, folder))
        form.addRow("diameter", row(self.diameter, self.find_diameter))
        form.addRow("windows", self.tile)
        form.addRow(row(self.run, self.stop))
        form.addRow(self.progress)
        form.addRow("score", score_row)
        form.addRow("mask", mask_row)
        form.addRow("smallest cell", self.area)
        form.addRow("types", self.vote)
        form.addRow(self.said)
        self._set_live(False)
        viewer.layers.events.inserted.connect(self._list_images)
        viewer.layers.events.removed.connect(self._list_images)
        self._list_images()

    def _list_images(self, event: object = None) -> None:
        names = [layer.name for layer in self._viewer.layers if isinstance(layer, Image)]
        if names != [self.image.itemText(i) for i in range(self.image.count())]:
            current = self.image.currentText()
            self.image.clear()
            self.image.addItems(names)
            self.image.setCurrentText(current if current in names else (names or [""])[-1])

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "The folder of a model")
        if folder:
            self.select_model(folder)

    def select_model(self, model: str) -> None:
        """Choose a model by name or folder; one that was read before is read again."""
        self._models.pop(model, None)
        if self.model.findText(model) < 0:
            self.model.addItem(model)
        self.model.setCurrentText(model)

    def plane(self) -> tuple[Image, np.ndarray]:
        """The image layer and its pixels, grey or colours, of a stack the plane that is shown.

        Raises:
            CellSegError: there is no image.
        """
        name = self.image.currentText()
        if name not in self._viewer.layers:
            raise CellSegError("there is no image to segment: open one, or take File > Open Sample > cellseg_d2")
        layer = self._viewer.layers[name]
        data = layer.data[0] if layer.multiscale else layer.data
        extra = data.ndim - 2 - bool(layer.rgb)
        step = self._viewer.dims.current_step[-(layer.ndim) :][:extra] if extra else ()
        return layer, np.asarray(data[tuple(step)])

    def segment(self) -> None:
        """Run the network on the image that is chosen, in a thread of its own."""
        if self._worker is not None:  # for another image
            self._again = True
            self.cancel()
            return
        try:
            layer, pixels = self.plane()
        except CellSegError as error:
            show_error(str(error))
            return
        model, diameter, tile = self.model.currentText(), None, self.tile.value() or None
        if not self.find_diameter.isChecked():
            diameter = self.diameter.value()
        if tile is not None:
            tile = max(tile, LEAST_TILE)
        self._stop, self._looks = False, 0
        self._busy(True)

        def work() -> tuple[CellSegmenter, Segmentation]:
            segmenter = self._models.get(model) or CellSegmenter.from_pretrained(model)
            self._models[model] = segmenter
            segmenter.before_look = self._before_look
            axis = 2 if pixels.ndim == 3 else None
            return segmenter, segmenter.segment(
                pixels, diameter=diameter, tile=tile, channel_axis=axis, name=layer.name, keep_detections=True
            )

        self._worker = in_background(
            work, lambda result: self._show(layer, *result), self._failed, lambda: self._busy(False)
        )

    def cancel(self) -> None:
        """Have the network stop before its next look."""
        self._stop = True

    def _before_look(self) -> None:
        if self._stop:
            raise Stopped
        self._looks += 1

    def _busy(self, busy: bool) -> None:
        self.run.setEnabled(not busy)
        self.stop.setEnabled(busy)
        self.progress.setVisible(busy)
        self.progress.setRange(0, 0)
        if not busy:
            self._worker = None
            if self._again:
                self._again = False
                self.segment()

    def _failed(self, error: CellSegError | Stopped) -> None:
        if isinstance(error, Stopped) and self._again:
            return
        if isinstance(error, Stopped):
            show_info(f"stopped after {self._looks} looks at the image")
        else:
            show_error(str(error))

    def _show(self, source: Image, segmenter: CellSegmenter, segmentation: Segmentation) -> None:
        if source not in self._viewer.layers:  # another image is shown meanwhile
            return
        self.segmentation = segmentation
        params = segmenter.params
        self._params = None  # what is set here is what was segmented with
        self.score.setValue(round(100 * min(params.score_thresholds)))
        self.mask.setValue(round(100 * min(params.mask_thresholds)))
        self.area.setValue(min(params.min_areas))
        self.vote.setChecked(params.vote)
        self.vote.setEnabled(len(segmentation.class_names) > 1)
        self._params = params
        if len(segmentation) and self.find_diameter.isChecked():
            self.diameter.setValue(float(segmentation.measure()["equivalent_diameter_px"].median()))
        self._layer = show_cells(self._viewer, source, segmentation)
        self._shown = self._layer.data.copy()  # painting changes the layer's own
        self._set_live(True)
        self._say(segmentation)
        self.segmented.emit(self._layer)

    def _rest(self, value: object) -> None:
        """Wait until a threshold rests."""
        if self._params is not None:
            self._timer.start(_REST)

    def apply_thresholds(self) -> None:
        """Make cells anew of what the network has detected, with the thresholds as they are; it is not run again.

        Cells that were painted are never replaced.
        """
        if self._params is None or self._layer not in self._viewer.layers:
            return
        if not np.array_equal(self._layer.data, self._shown):
            self._set_live(False)
            self.said.setText("You have edited the cells: thresholds stay as they are. Segment again to start over.")
            return
        params = replace(
            self._params,
            score_thresholds=(self.score.value() / 100,),
            mask_thresholds=(self.mask.value() / 100,),
            min_areas=(self.area.value(),),
            vote=self.vote.isChecked(),
            **({} if self.area.value() == min(self._params.min_areas) else MIN_AREAS_ALONE),
        )
        assert self.segmentation is not None
        cells = replace(self.segmentation, cells=postprocess(self.segmentation.detections, params))
        self._shown = cells.labels.astype(np.int32)
        self._layer.data = self._shown.copy()
        self._layer.features = features_of(cells)
        self._say(cells)

    def _say(self, segmentation: Segmentation) -> None:
        kinds = ", ".join(f"{count} {name}" for name, count in segmentation.counts.items() if count)
        several = f": {kinds}" if len(segmentation.class_names) > 1 and kinds else ""
        self.said.setText(f"{len(segmentation)} cells{several}. Hover over a cell to see its measurements.")

    def _set_live(self, live: bool) -> None:
        for widget in (self.score, self.mask, self.area):
            widget.setEnabled(live)
        if not live:
            self.vote.setEnabled(False)


def show_cells(viewer: Viewer, source: Image, segmentation: Segmentation) -> Labels:
    """Show cells over their image, in the one layer of cells, with their measurements as its features."""
    labels = segmentation.labels.astype(np.int32)
    if CELLS in viewer.layers:
        viewer.layers.remove(CELLS)
    scale, translate = source.scale[-2:], source.translate[-2:]
    layer = viewer.add_labels(labels, name=CELLS, scale=scale, translate=translate, features=features_of(segmentation))
    layer.contour = 2
    return layer


def features_of(segmentation: Segmentation) -> pd.DataFrame:
    """The measurements with a first row for the background, as napari's labels layers take them."""
    table = segmentation.measure().rename(columns={"label": "index"})
    background = pd.DataFrame({"index": [0]})
    return pd.concat([background, table], ignore_index=True)


def row(*widgets: QWidget) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return row


def _slider(low: int, high: int, shown: Callable[[int], str]) -> tuple[QSlider, QWidget]:
    slider, label = QSlider(Qt.Orientation.Horizontal), QLabel(shown(low))
    slider.setRange(low, high)
    label.setMinimumWidth(32)
    slider.valueChanged.connect(lambda value: label.setText(shown(value)))
    return slider, row(slider, label)
