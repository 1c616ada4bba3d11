"""Mask R-CNN instance segmentation of cells in microscopy images, on Detectron2."""

from cellseg_d2.missing import explain_missing_detectron2

__version__ = "0.1.0"

explain_missing_detectron2()
