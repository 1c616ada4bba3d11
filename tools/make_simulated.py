#!/usr/bin/env python3
"""Write a simulated data set of cells in the layout of the Kaggle competition; see --help."""

from _checkout import run
from cellseg_d2.cli.make_simulated import main

if __name__ == "__main__":
    run(main)
