#!/usr/bin/env python3
"""Convert annotations or results between formats, without a model; see --help."""

from _checkout import run
from cellseg_d2.cli.convert import main

if __name__ == "__main__":
    run(main)
