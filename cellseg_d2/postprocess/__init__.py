"""From detections to cells: the steps, their parameters, and the tuning of these."""
