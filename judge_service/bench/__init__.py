"""Measures how good a judge is (`judge bench`): a running service scores labelled pairs."""
