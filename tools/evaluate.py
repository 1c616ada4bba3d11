#!/usr/bin/env python3
"""Score predictions against the truth: the competition's metric, and COCO's or LIVECell's AP; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
