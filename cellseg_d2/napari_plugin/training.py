"""The box "Train": a training in the background, with its loss while it runs and its scores at the end."""

from __future__ import annotations

import pandas as pd
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import QProcess, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QGroupBox, QPlainTextEdit, QPushButton, QSpinBox

from cellseg_d2.correction.project import Project
from cellseg_d2.napari_plugin.segmenting import row
from cellseg_d2.processes import own_command
from cellseg_d2.visualization.curves import read_loss_csv

_PERIOD = 1000  # milliseconds between two looks at the loss
_SAID = 2000  # lines kept


class TrainBox(QGroupBox):
    """Trains the model of a project further, by ``cellseg-d2 train`` in a process that ends with this one.

    Attributes:
        trained: a signal with the folder of the new model.
    """

    trained = Signal(str)

    def __init__(self) -> None:
        super().__init__("Train")
        self._project: Project | None = None
        self.process: QProcess | None = None
        self.iterations = QSpinBox()
        self.iterations.setRange(0, 100_000)
        self.iterations.setSingleStep(100)
        self.iterations.setSpecialValueText("as many as fit")
        self.score = QCheckBox("score on images that were not trained on")
        self.score.setChecked(True)
        self.score.setToolTip("Of few images by a cross-validation, which takes as long again for each half")
        self.run = QPushButton("Train")
        self.run.clicked.connect(self.train)
        self.stop = QPushButton("Stop")
        self.stop.setToolTip("The same training goes on where it was when Train is pressed again")
        self.stop.clicked.connect(self.cancel)
        self.said = QPlainTextEdit()
        self.said.setReadOnly(True)
        self.said.setMaximumBlockCount(_SAID)
        self.said.setMaximumHeight(110)
        figure = Figure(figsize=(3, 1.6), layout="constrained")
        self._axes = figure.subplots()
        self.canvas = FigureCanvasQTAgg(figure)
        self.canvas.setMinimumHeight(150)
        self.canvas.setVisible(False)
        form = QFormLayout(self)
        form.addRow("iterations", self.iterations)
        form.addRow(self.score)
        form.addRow(row(self.run, self.stop))
        form.addRow(self.canvas)
        form.addRow(self.said)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.draw_loss)
        self._enable()

    def set_project(self, project: Project) -> None:
        """Train on what this project has corrected."""
        self._project = project
        self._enable()

    def _enable(self) -> None:
        running = self.process is not None
        self.run.setEnabled(self._project is not None and not running)
        self.stop.setEnabled(running)

    def train(self) -> None:
        """Start."""
        if self._project is None or self.process is not None:
            return
        program, *words = own_command("train")
        words += ["--project", str(self._project.folder)]
        words += ["--iterations", str(self.iterations.value())] if self.iterations.value() else []
        words += [] if self.score.isChecked() else ["--folds", "0"]
        self.said.clear()
        self.process = process = QProcess(self)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.readyReadStandardOutput.connect(self._read)
        process.finished.connect(self._finished)
        process.start(program, words)
        self._timer.start(_PERIOD)
        self._enable()

    def cancel(self) -> None:
        """End the training; what it has done so far is kept."""
        if self.process is not None:
            self.process.terminate()

    def _read(self) -> None:
        assert self.process is not None
        text = bytes(self.process.readAllStandardOutput().data()).decode("utf-8", errors="replace")
        for line in text.splitlines():
            if line and "Warning" not in line and not line.startswith(" "):
                self.said.appendPlainText(line)

    def _finished(self, code: int) -> None:
        self._read()
        self._timer.stop()
        self.draw_loss()
        self.process = None
        self._enable()
        if code == 0 and self._project is not None:
            self.trained.emit(self._project.model)
        else:
            self.said.appendPlainText("stopped: Train goes on where it was" if code == 143 else "the training failed")

    def draw_loss(self) -> None:
        """Show the loss of the training that has written last."""
        losses = self.losses()
        if losses is None or losses.empty:
            return
        self.canvas.setVisible(True)
        self._axes.clear()
        self._axes.plot(losses["iteration"], losses["total_loss"], linewidth=1)
        self._axes.set_xlabel("iteration")
        self._axes.set_ylabel("loss")
        self.canvas.draw_idle()

    def losses(self) -> pd.DataFrame | None:
        """See :func:`read_loss_csv`, of the training that has written last; None where there is none."""
        files = [] if self._project is None else list((self._project.folder / "runs").glob("*/*/losses.csv"))
        return read_loss_csv(max(files, key=lambda path: path.stat().st_mtime)) if files else None
