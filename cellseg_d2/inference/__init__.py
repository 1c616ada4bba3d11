"""From an image to cells: segmenters, and the segmentation that they give."""
