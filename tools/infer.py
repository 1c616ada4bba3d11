#!/usr/bin/env python3
"""Segment images with a shipped or a trained model; see --help."""

from _checkout import run
from cellseg_d2.cli.infer import main

if __name__ == "__main__":
    run(main)
