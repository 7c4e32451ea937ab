"""Trains the two tiny models of the demo."""
