"""Pictures of masks, of predictions beside the truth, and of training curves."""
