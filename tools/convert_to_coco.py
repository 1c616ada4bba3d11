#!/usr/bin/env python3
"""Check annotated images and convert them to COCO JSON; see --help."""

from _checkout import run
from cellseg_d2.cli.convert_to_coco import main

if __name__ == "__main__":
    run(main)
