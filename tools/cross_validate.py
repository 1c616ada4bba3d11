#!/usr/bin/env python3
"""Train all folds of a dataset and report mean ± spread of the score; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
