"""Masks of cells and their encodings; imports neither PyTorch nor Detectron2."""
