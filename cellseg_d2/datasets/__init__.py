"""Annotated data sets: their readers, checks, splits and conversion; needs neither torch nor Detectron2."""
