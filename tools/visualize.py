#!/usr/bin/env python3
"""Pictures of data, augmentations and predictions; see --help."""

from _checkout import run
from cellseg_d2.cli.visualize import main

if __name__ == "__main__":
    run(main)
