"""Files that are whole or not there, and what is read from them as text."""
