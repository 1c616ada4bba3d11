#!/usr/bin/env python3
"""Search the post-processing with the best competition score on saved detections; see --help."""

from _checkout import run
from cellseg_d2.cli.tune_postprocess import main

if __name__ == "__main__":
    run(main)
