"""Measurements of this project against stock Detectron2, for ``tools/benchmark.py``."""
