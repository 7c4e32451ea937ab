"""Turns a corpus and its vectors into score shards and training rows. Needs no GPU and no torch."""
