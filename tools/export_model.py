#!/usr/bin/env python3
"""Make a folder to hand on of a trained model: short configuration, safetensors, post-processing; see --help."""

from _checkout import run_command

if __name__ == "__main__":
    run_command(__file__)
