#!/usr/bin/env python3
"""Train or evaluate a Mask R-CNN on cells; see --help."""

from _checkout import run
from cellseg_d2.cli.train_net import main

if __name__ == "__main__":
    run(main)
