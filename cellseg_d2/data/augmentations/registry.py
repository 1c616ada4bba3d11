"""The augmentations that ``INPUT.AUGMENTATIONS`` can name, each a decorated function in a file of this folder.

Such a function takes the configuration and gives a list of Detectron2's ``Augmentation``. Its own settings, with their
defaults, are the decorator's ``defaults``; they stand in the configuration under ``INPUT.<NAME>``.
"""

from __future__ import annotations

from cellseg_d2.registry import Entry, Registry

AUGMENTATION_REGISTRY = Registry("AUGMENTATION_REGISTRY", "cellseg_d2.data.augmentations", "the augmentation", Entry)
