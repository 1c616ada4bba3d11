"""Write cells in the formats that other programs read."""
