"""Measures the peak memory of each command."""
