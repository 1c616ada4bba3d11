"""Mask R-CNN instance segmentation of cells in microscopy images, on Detectron2."""

__version__ = "0.1.0"
