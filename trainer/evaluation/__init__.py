"""Ranks candidates by cosine similarity and measures the ranking."""
