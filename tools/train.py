#!/usr/bin/env python3
"""Train a model further on your own corrected or annotated images, without a configuration; see --help."""

from _checkout import run
from cellseg_d2.cli.train import main

if __name__ == "__main__":
    run(main)
