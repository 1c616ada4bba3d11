#!/usr/bin/env python3
"""How well anchors cover the cells of a data set, and anchors fitted to it; see --help."""

from _checkout import run
from cellseg_d2.cli.fit_anchors import main

if __name__ == "__main__":
    run(main)
