"""Many selections of the same scores, counted side by side."""
