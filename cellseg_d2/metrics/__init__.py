"""Scores of predictions and kinds of errors; imports neither PyTorch nor Detectron2."""
