"""A scoring job: pairs go to the judge, and shards of scores come back. On one machine or on a Ray cluster."""
