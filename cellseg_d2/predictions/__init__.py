"""Read true and predicted cells, and write the competition's submissions."""
