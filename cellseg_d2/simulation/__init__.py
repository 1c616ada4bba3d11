"""Simulated images of cell cultures, in the competition's layout.

Neurons as the competition's instrument shows them (``scene``), and cultures of many kinds, from single cells to sheets
without gaps, as several kinds of microscopes show them (``culture``).

They stand in for data that may not be redistributed: the demo and the tests run on them, and networks can be trained on
them without any licence. Nothing in them is taken from real images but figures: counts, areas, shares of overlap.
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
