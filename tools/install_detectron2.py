#!/usr/bin/env python3
"""Install Detectron2, which is on no package index under its own name; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
