"""A space of cell shapes, learnt from masks alone: how plausible a mask is, and new shapes like those of a data set."""

from pathlib import Path

# The space that comes with the project, of simulated cells.
SHIPPED = Path(__file__).resolve().parents[1] / "models/shapes/shapes.safetensors"
