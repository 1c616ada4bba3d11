"""Masks of cells and their encodings; needs neither torch nor Detectron2."""
