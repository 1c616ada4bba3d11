"""What the plugin docks into napari: segment, correct, train."""

from __future__ import annotations

from napari.viewer import Viewer
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from cellseg_d2.correction.project import Project
from cellseg_d2.napari_plugin.correcting import CorrectBox
from cellseg_d2.napari_plugin.segmenting import SegmentBox
from cellseg_d2.napari_plugin.training import TrainBox

TITLE = "Segment, correct and retrain"


class CellsWidget(QScrollArea):
    """The three boxes, and how they work together.

    Attributes:
        segment, correct, train: the boxes.
    """

    def __init__(self, napari_viewer: Viewer):
        super().__init__()
        self.segment = SegmentBox(napari_viewer)
        self.correct = CorrectBox(napari_viewer, self.segment.model.currentText)
        self.train = TrainBox()
        self.segment.segmented.connect(self.correct.proposed)
        self.correct.shown.connect(self.segment.segment)
        self.correct.opened.connect(self._opened)
        self.train.trained.connect(self.segment.select_model)
        content = QWidget()
        layout = QVBoxLayout(content)
        for box in (self.segment, self.correct, self.train):
            layout.addWidget(box)
        layout.addStretch()
        self.setWidgetResizable(True)
        self.setWidget(content)
        self.setMinimumWidth(340)

    def _opened(self, project: Project) -> None:
        self.train.set_project(project)
        self.segment.select_model(project.model)


def open_viewer(project: Project, show: bool = True) -> tuple[Viewer, CellsWidget]:
    """napari with the widget, a project, and the first of its images that was not corrected yet."""
    viewer = Viewer(title=f"cellseg-d2: {project.folder}", show=show)
    widget = CellsWidget(viewer)
    viewer.window.add_dock_widget(widget, name=TITLE, area="right")
    widget.correct.open_project(project)
    widget.correct.show_image((project.uncorrected or project.names)[0])
    return viewer, widget
