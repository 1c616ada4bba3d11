#!/usr/bin/env python3
"""Measurements of this project against stock Detectron2; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
