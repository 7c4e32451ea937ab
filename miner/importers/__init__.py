"""Foreign layouts in: one file for each."""
