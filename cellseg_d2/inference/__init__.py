"""From an image to cells: detections, post-processing, and the segmenter that ties them together."""
