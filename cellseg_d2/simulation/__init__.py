"""Simulated phase-contrast images of neuronal cultures, in the competition's layout.

They stand in for data that may not be redistributed: the demo and the tests run on them, and networks can be trained on
them without any licence. Nothing in them is taken from real images but figures: counts, areas, shares of overlap.
"""

from cellseg_d2.simulation.dataset import write_dataset
from cellseg_d2.simulation.optics import Appearance
from cellseg_d2.simulation.scene import simulate_image
from cellseg_d2.simulation.shapes import CELL_TYPES

__all__ = ["CELL_TYPES", "Appearance", "simulate_image", "write_dataset"]
