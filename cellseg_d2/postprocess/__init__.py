"""Post-processing of detections to cells: the steps, their parameters, and the tuning of the parameters."""
