#!/usr/bin/env python3
"""One HTML page about a training run, about predictions, or about both; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
