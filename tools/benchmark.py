#!/usr/bin/env python3
"""Measurements of this project against stock Detectron2; see --help."""

from _checkout import run
from cellseg_d2.cli.benchmark import main

if __name__ == "__main__":
    run(main)
