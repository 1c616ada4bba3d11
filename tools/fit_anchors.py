#!/usr/bin/env python3
"""How well anchors cover the cells of a data set, and anchors fitted to it; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
