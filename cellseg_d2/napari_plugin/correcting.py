"""The box "Correct": images of a project one after the other, and saves of what was painted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from napari.layers import Labels
from napari.qt.threading import FunctionWorker
from napari.utils.notifications import show_error, show_info
from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QGridLayout, QGroupBox, QLabel, QPushButton

from cellseg_d2.correction.next_image import rank_images
from cellseg_d2.correction.project import Project
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.ignore import outside_of
from cellseg_d2.masks.overlaps import crops_from_labels
from cellseg_d2.napari_plugin.background import in_background
from cellseg_d2.napari_plugin.segmenting import CELLS

REGION = "region that counts"
# What of an image a save teaches.
WHOLE, MARKED, CELLS_ONLY = "the whole image", "the marked region", "the cells alone"


class CorrectBox(QGroupBox):
    """Opens images of a project and saves their cells.

    Attributes:
        project: that is open; None where none is.
        name: of its image that is shown; None where none is.
        opened: a signal with the project.
        shown: a signal, sent when an image without cells is shown, which may then be segmented.
    """

    opened = Signal(object)
    shown = Signal()

    def __init__(self, viewer: Viewer, model: Callable[[], str]):
        super().__init__("Correct")
        self._viewer, self._model = viewer, model
        self._worker: FunctionWorker | None = None
        self._before: np.ndarray | None = None
        self.project: Project | None = None
        self.name: str | None = None
        self.where = QLabel("no project is open")
        self.where.setWordWrap(True)
        choose = QPushButton("Project …")
        choose.setToolTip("A folder in which every save is kept; a new one is made of a folder of images")
        choose.clicked.connect(self._choose)
        self.images = QComboBox()
        self.images.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.images.activated.connect(lambda _: self.show_image(self.images.currentData()))
        self.next = QPushButton("Next image")
        self.next.setToolTip("The image that the model is least sure of, as it sees other cells when it is turned")
        self.next.clicked.connect(self.next_image)
        self.counts = QComboBox()
        self.counts.addItems([WHOLE, MARKED, CELLS_ONLY])
        self.counts.setToolTip("Training learns nothing from what does not count")
        self.counts.currentTextChanged.connect(self._mark)
        self.save = QPushButton("Save corrections")
        self.save.clicked.connect(self.save_corrections)
        self.said = QLabel()
        self.said.setWordWrap(True)
        grid = QGridLayout(self)
        grid.addWidget(choose, 0, 0)
        grid.addWidget(self.where, 0, 1)
        grid.addWidget(self.images, 1, 0, 1, 2)
        grid.addWidget(QLabel("what counts"), 2, 0)
        grid.addWidget(self.counts, 2, 1)
        grid.addWidget(self.save, 3, 0)
        grid.addWidget(self.next, 3, 1)
        grid.addWidget(self.said, 4, 0, 1, 2)
        self._enable()

    def _choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "The folder of a project, or an empty one for a new project")
        if not folder:
            return
        images = None
        if not (Path(folder) / "project.json").is_file():
            images = QFileDialog.getExistingDirectory(self, "The folder of the images to correct")
            if not images:
                return
        try:
            self.open_project(Project.open(folder, images))
        except CellSegError as error:
            show_error(str(error))

    def open_project(self, project: Project) -> None:
        """Work on a project."""
        self.project, self.name = project, None
        self._list()
        self.opened.emit(project)

    def _list(self) -> None:
        assert self.project is not None
        done = self.project.corrected
        self.where.setText(f"{self.project.folder.name}: {len(done)} of {len(self.project.names)} images corrected")
        self.where.setToolTip(str(self.project.folder))
        self.images.clear()
        for name in self.project.names:
            self.images.addItem(f"✓ {name}" if name in done else name, name)
        self.images.setCurrentIndex(self.images.findData(self.name))
        self._enable()

    def _enable(self) -> None:
        busy = self._worker is not None
        self.next.setEnabled(self.project is not None and not busy)
        self.save.setEnabled(self.project is not None and self.name is not None)

    def show_image(self, name: str) -> None:
        """Show an image of the project in place of the one before, with its cells as they were saved last."""
        assert self.project is not None
        try:
            pixels, last = read_image(self.project.image_path(name)), self.project.last(name)
        except CellSegError as error:
            show_error(str(error))
            return
        for layer in [own for own in self._viewer.layers if own.name in (self.name, CELLS, REGION)]:
            self._viewer.layers.remove(layer)
        self.name = name
        self._viewer.add_image(pixels, name=name)
        self._before = None
        self.counts.setCurrentText(WHOLE)
        if last is not None:
            self._before = last.labels
            self._viewer.add_labels(last.labels.astype(np.int32), name=CELLS).contour = 2
            if last.counts is not None:
                show_info(f"of {name}, only a part was saved as looked at; mark it again to save")
        self._viewer.reset_view()
        self.images.setCurrentIndex(self.images.findData(name))
        self._enable()
        if last is None:
            self.shown.emit()

    def proposed(self, layer: Labels) -> None:
        """Remember the cells that a model proposes: what is saved later is compared with them."""
        if self.name is not None and (self.project is None or self.project.last(self.name) is None):
            self._before = np.asarray(layer.data).copy()

    def next_image(self) -> None:
        """Find the image that the model is least sure of, in a thread of its own, and show it."""
        project, model = self.project, self._model()
        if project is None or self._worker is not None:
            return
        names = [name for name in project.uncorrected if name != self.name]
        if not names:
            show_info("all images of the project are corrected")
            return
        self.said.setText(f"looking at {len(names)} images …")

        def work() -> dict[str, float]:
            return rank_images(project, CellSegmenter.from_pretrained(model), names)

        def done(ranks: dict[str, float]) -> None:
            first = next(iter(ranks))
            self.said.setText(f"{first}: turned, the model sees {100 * ranks[first]:.0f} % of its cells otherwise")
            self.show_image(first)

        def failed(error: Exception) -> None:
            self.said.clear()
            show_error(str(error))

        def finished() -> None:
            self._worker = None
            self._enable()

        self._worker = in_background(work, done, failed, finished)
        self._enable()

    def save_corrections(self) -> None:
        """Save the cells of the image that is shown, as a new save beside all before."""
        assert self.project is not None
        assert self.name is not None
        try:
            labels, counts = self._labels(), self._region()
            correction = self.project.save(
                self.name, labels, counts=counts, before=self._before, notes={"model": self._model()}
            )
        except CellSegError as error:
            show_error(str(error))
            return
        self._before = labels
        changes = correction.changes
        self.said.setText(
            f"save {correction.number} of {self.name}: {changes.added} cells added, {changes.removed} removed, "
            f"{changes.changed} changed, {changes.kept} as they were"
        )
        self._list()

    def _labels(self) -> np.ndarray:
        if CELLS not in self._viewer.layers:
            raise CellSegError(
                f"there is no layer {CELLS!r} to save: segment the image, or add a labels layer of that name"
            )
        return np.asarray(self._viewer.layers[CELLS].data).copy()

    def _region(self) -> np.ndarray | None:
        """What counts, bool ``(H, W)``; None for all."""
        chosen, labels = self.counts.currentText(), self._labels()
        if chosen == WHOLE:
            return None
        if chosen == CELLS_ONLY:
            ignored = outside_of(crops_from_labels(labels), *labels.shape) or MaskCrop(0, 0, np.zeros((0, 0), bool))
            return ~ignored.to_full(*labels.shape)
        if REGION not in self._viewer.layers or not len(self._viewer.layers[REGION].data):
            raise CellSegError(f"draw what counts into the layer {REGION!r}, or choose {WHOLE!r}")
        return self._viewer.layers[REGION].to_masks(labels.shape).any(axis=0)

    def _mark(self, chosen: str) -> None:
        """Give the user a layer to mark the region in."""
        if chosen != MARKED or REGION in self._viewer.layers:
            return
        layer = self._viewer.add_shapes(name=REGION, face_color="#ffffff22", edge_color="yellow", edge_width=3)
        layer.mode = "add_rectangle"
