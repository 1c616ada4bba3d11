"""Evaluation of predictions, as files and during training."""
