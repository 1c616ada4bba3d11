#!/usr/bin/env python3
"""A space of cell shapes: train it, draw a map of it, rank annotations by it; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
