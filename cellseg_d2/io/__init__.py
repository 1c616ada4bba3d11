"""Atomic writing of files, and strict reading of text files."""
