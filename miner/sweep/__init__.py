"""Compares many selections of the same scores side by side."""
