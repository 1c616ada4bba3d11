"""Tiling of images that are too large for a network, and merging of cells at the seams."""
