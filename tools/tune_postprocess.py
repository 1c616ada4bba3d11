#!/usr/bin/env python3
"""Search the post-processing with the best competition score on saved detections; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
