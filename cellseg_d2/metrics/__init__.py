"""What predictions are worth: scores, and the kinds of errors; needs neither torch nor Detectron2."""
