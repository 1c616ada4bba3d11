#!/usr/bin/env python3
"""Install Detectron2, which is on no package index under its own name; see --help."""

from _checkout import run
from cellseg_d2.cli.install_detectron2 import main

if __name__ == "__main__":
    run(main)
