"""Training: set-up, trainer, hooks and records."""
