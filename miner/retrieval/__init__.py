"""The first stage of a scoring job: which items may be a candidate of each query."""
