"""A network as Detectron2's evaluators see it: what is scored is what users get."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import nn

from cellseg_d2.detections.instances import UnpastedMasks, to_instances
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.modeling.precision import prediction_dtype


class EvaluatedSegmenter(nn.Module):
    """Detectron2's model interface of :meth:`cellseg_d2.inference.segmenter.Segmenter.segment`.

    Images are thus looked at in evaluation as in prediction: at the same scale, in the same windows, with test-time
    augmentation where the configuration has it, and with one post-processing.

    Args:
        cfg: of the network.
        model: the network; a ``DistributedDataParallel`` around it is taken off.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        super().__init__()
        mode = model.training
        self._segmenter = CellSegmenter.from_network(cfg, model)
        self._as_given = UnpastedMasks(model, prediction_dtype(cfg.TEST.PRECISION, cfg.MODEL.DEVICE))
        self.train(mode)  # to which Detectron2 goes back after the evaluation

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """What is found in images.

        Args:
            batched_inputs: dataset dicts, of which ``file_name`` is segmented. Those with an ``image``, as of a data
                loader of one's own, go to the network as Detectron2's models take them.

        Returns:
            For each image ``instances``, everything that is detected, with masks on their boxes' grids, and where
            ``file_name`` was segmented ``cells``, disjoint.

        Raises:
            CellSegError: an image cannot be read, or has another size than its annotations are for.
        """
        return [self._as_given([one])[0] if "image" in one else self._segmented(one) for one in batched_inputs]

    def _segmented(self, entry: dict) -> dict:
        found = self._segmenter.segment(entry["file_name"], keep_detections=True)
        expected = entry.get("height", found.height), entry.get("width", found.width)
        if (found.height, found.width) != expected:
            raise CellSegError(
                f"{entry['file_name']} is {found.height} × {found.width} pixels (height × width), but its annotations "
                f"are for {expected[0]} × {expected[1]}"
            )
        return {"instances": to_instances(found.detections), "cells": found.cells}


def without_annotations(entry: dict) -> dict:
    """A dataset dict as :class:`EvaluatedSegmenter` takes it."""
    return {key: value for key, value in entry.items() if key != "annotations"}
