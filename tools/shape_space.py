#!/usr/bin/env python3
"""A space of cell shapes: train it, draw a map of it, rank annotations by it; see --help."""

from _checkout import run
from cellseg_d2.cli.shape_space import main

if __name__ == "__main__":
    run(main)
