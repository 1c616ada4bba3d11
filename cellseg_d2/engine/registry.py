"""Writers of a user's own for what a training measures, such as to a tracking server; ``--import`` brings them.

Each is a decorated function that takes the configuration and gives a Detectron2 ``EventWriter``. All that are
registered write, beside the console, TensorBoard and the files of the run, in the first process of a training only.
"""

from __future__ import annotations

from cellseg_d2.registry import Entry, Registry

WRITER_REGISTRY = Registry("WRITER_REGISTRY", "cellseg_d2.engine", "the writer", Entry)
