#!/usr/bin/env python3
"""Which cells a model misses, merges, splits, outlines badly or makes up; see --help."""

from _checkout import run
from cellseg_d2.cli.analyze_errors import main

if __name__ == "__main__":
    run(main)
