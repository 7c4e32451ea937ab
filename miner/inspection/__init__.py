"""Writes the page on which a person inspects the outcome of a selection."""
