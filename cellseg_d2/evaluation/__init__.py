"""Evaluators that configurations name; importing this package registers them."""

from cellseg_d2.evaluation import coco_protocol, competition  # noqa: F401
