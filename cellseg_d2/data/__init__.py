"""Detectron2's side of the data: data sets by name, and training samples from them."""
