#!/usr/bin/env python3
"""Train or evaluate a Mask R-CNN on cells; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
