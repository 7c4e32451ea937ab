"""Publishes a scored dataset."""
