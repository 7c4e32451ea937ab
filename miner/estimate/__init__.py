"""Estimates the cost of a scoring job before it runs."""
