#!/usr/bin/env python3
"""Write a simulated data set of cells in the layout of the Kaggle competition; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
