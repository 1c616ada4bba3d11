"""Cross-validation: train and evaluate fold by fold."""
