"""Evaluation during training, by evaluators that configurations name."""
