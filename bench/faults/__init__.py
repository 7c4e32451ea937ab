"""Measures what a scoring job loses when a part fails."""
