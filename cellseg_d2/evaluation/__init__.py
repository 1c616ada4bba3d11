"""Evaluators that configurations name."""
