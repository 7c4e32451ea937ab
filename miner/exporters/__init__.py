"""Foreign layouts out: one file for each."""
