"""Corpus and vectors in, score shards and training rows out. Needs no GPU and no torch."""
