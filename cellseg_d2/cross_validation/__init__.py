"""Training and evaluation fold by fold."""
