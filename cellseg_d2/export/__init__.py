"""Writing cells in the forms that others read."""
