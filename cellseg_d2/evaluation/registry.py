"""The evaluators that ``TEST.EVALUATORS`` can name, each a decorated function in a file of this folder.

It takes the configuration, the name of a registered dataset and the folder for files, and gives a Detectron2
``DatasetEvaluator``. With the decorator's ``class_blind=True``, it is given the dataset with its own cell types, also
where the model knows them by other names.
"""

from __future__ import annotations

from cellseg_d2.registry import Entry, Registry

EVALUATOR_REGISTRY = Registry("EVALUATOR_REGISTRY", "cellseg_d2.evaluation", "the evaluator", Entry)
