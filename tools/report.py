#!/usr/bin/env python3
"""One HTML page about a training run, about predictions, or about both; see --help."""

from _checkout import run
from cellseg_d2.cli.report import main

if __name__ == "__main__":
    run(main)
