"""Runs scoring jobs: sends pairs to the judge and writes shards of scores, on one machine or on a Ray cluster."""
