#!/usr/bin/env python3
"""Segment images with a shipped or a trained model; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
