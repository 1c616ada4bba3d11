"""Readers of true and predicted cells, and the writer of the competition's submissions."""
