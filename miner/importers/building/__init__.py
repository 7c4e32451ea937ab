"""Builds a corpus and a folder of published scores from rows of any layout."""
