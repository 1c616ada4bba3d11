"""Training: set-up, the trainer, and what it records."""
