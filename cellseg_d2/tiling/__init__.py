"""Images too large for a network at once: tiles, and what happens at their seams."""
