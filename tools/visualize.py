#!/usr/bin/env python3
"""Pictures of data, augmentations and predictions; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
