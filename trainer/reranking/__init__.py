"""Reranks the best items of an evaluation with a judge's answers."""
