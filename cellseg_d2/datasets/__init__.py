"""Annotated data sets: readers, checks, splits and conversion; imports neither PyTorch nor Detectron2."""
