#!/usr/bin/env python3
"""Look at images in napari, correct their cells, and train on what was corrected; see --help."""

from _checkout import run
from cellseg_d2.cli.correct import main

if __name__ == "__main__":
    run(main)
