"""Write the picture of a segmentation as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.export.formats import FORMATS
from cellseg_d2.visualization.overlays import save_image

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


@FORMATS.register("overlay", suffix="_overlay.png", summary="picture (PNG) of the image with the cells outlined")
def write_overlay(path: str | Path, segmentation: Segmentation) -> None:
    """Write :meth:`Segmentation.picture` as PNG.

    Raises:
        CellSegError: the name does not end in ``.png``.
    """
    save_image(path, segmentation.picture())
