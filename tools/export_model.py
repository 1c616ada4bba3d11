#!/usr/bin/env python3
"""Package a trained model for sharing: short configuration, safetensors; see --help."""

from _checkout import run
from cellseg_d2.cli.export_model import main

if __name__ == "__main__":
    run(main)
