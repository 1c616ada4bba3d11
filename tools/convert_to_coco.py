#!/usr/bin/env python3
"""Check annotated images and convert them to COCO JSON; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
