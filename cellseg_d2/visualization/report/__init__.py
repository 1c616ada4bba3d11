"""One HTML file about a training run, about predictions, or about both; needs no network to be looked at."""
