"""Reading, checking, converting and simulating data sets of cells."""
