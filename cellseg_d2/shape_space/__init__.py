"""A space of cell shapes, learnt from masks alone: how plausible a mask is, and new shapes like those of a data set."""
