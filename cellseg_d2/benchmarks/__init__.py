"""Measurements of this project against stock Detectron2, for ``cellseg-d2 benchmark``."""
