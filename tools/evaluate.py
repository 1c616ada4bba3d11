#!/usr/bin/env python3
"""Score predictions against the truth: the competition's metric, and COCO's or LIVECell's AP; see --help."""

from _checkout import run
from cellseg_d2.cli.evaluate import main

if __name__ == "__main__":
    run(main)
