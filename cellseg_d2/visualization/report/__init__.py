"""Write one HTML file about a training run, about predictions, or about both; it works offline."""
