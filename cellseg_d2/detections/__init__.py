"""Detections of one image, their files, and the fusion of several sets of them."""
