"""Reranks an evaluation's best items by a judge's answers."""
