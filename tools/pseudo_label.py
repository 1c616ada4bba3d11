#!/usr/bin/env python3
"""Predictions on images without annotations as a data set to train on; see --help."""

from _checkout import run
from cellseg_d2.cli.pseudo_label import main

if __name__ == "__main__":
    run(main)
