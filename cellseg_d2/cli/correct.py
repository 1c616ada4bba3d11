"""Look at images in napari, correct their cells, and train on what was corrected; see --help."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cellseg_d2.cli.common import make_parser

# Of the environment: where windows open, or what is Qt's instead of a screen.
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
EXAMPLES = """\
  cellseg-d2 correct --images my_images --project mine
  cellseg-d2 correct --project mine  # go on
  cellseg-d2 train --project mine  # train on what was corrected, without a screen
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "correct",
        "Open images in napari with the cells that a model finds. What you paint, fill and erase in the layer 'cells'\n"
        "is saved into the project, every save apart, and a model trained on it is at once the one that proposes.\n"
        "Needs napari: pip install 'cellseg_d2[napari]'.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("--project", type=Path, required=True, metavar="P", help="folder of the project; made where needed")
    add("--images", type=Path, metavar="DIR", help="folder of the images, for a new project or where they have moved")
    add("--model", metavar="M", help="the model to begin with (default: that of P, at first the shipped one, cells)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from importlib.util import find_spec

    from cellseg_d2.correction.project import Project
    from cellseg_d2.errors import NO_NAPARI, CellSegError

    if find_spec("napari") is None or find_spec("qtpy") is None:
        raise CellSegError(NO_NAPARI)
    if sys.platform == "linux" and not any(map(os.environ.get, DISPLAYS)):  # Qt would abort
        raise CellSegError(
            "there is no display to open napari on: run this in a desktop session, or over ssh -X; cellseg-d2 train "
            "needs none"
        )
    project = Project.open(args.project, args.images, args.model)

    import napari

    from cellseg_d2.napari_plugin.widget import open_viewer

    open_viewer(project)
    napari.run()
    return 0
