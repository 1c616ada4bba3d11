"""Data for Detectron2: registered data sets, and training samples from them."""
