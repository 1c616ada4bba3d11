#!/usr/bin/env python3
"""Predictions on images without annotations as a data set to train on; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
