"""Simulated images of cell cultures, in the competition's layout.

``scene`` simulates neurons as the competition's instrument shows them, ``culture`` cultures of many kinds, from single
cells to sheets without gaps, under several kinds of microscopes.

They replace data that may not be redistributed: the demo and the tests run on them, and networks can be trained on them
without any licence. Only figures are taken from real images: counts, areas, shares of overlap.
"""

from cellseg_d2.simulation.culture import simulate_culture
from cellseg_d2.simulation.culture_kinds import CULTURE_TYPES
from cellseg_d2.simulation.dataset import write_dataset
from cellseg_d2.simulation.microscopes import Microscope
from cellseg_d2.simulation.optics import Appearance
from cellseg_d2.simulation.scene import simulate_image
from cellseg_d2.simulation.shapes import CELL_TYPES

__all__ = [
    "CELL_TYPES",
    "CULTURE_TYPES",
    "Appearance",
    "Microscope",
    "simulate_culture",
    "simulate_image",
    "write_dataset",
]
