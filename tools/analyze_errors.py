#!/usr/bin/env python3
"""Which cells a model misses, merges, splits, outlines badly or makes up; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
