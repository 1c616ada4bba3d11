#!/usr/bin/env python3
"""Train all folds of a dataset and report mean ± spread of the score; see --help."""

from _checkout import run
from cellseg_d2.cli.cross_validate import main

if __name__ == "__main__":
    run(main)
