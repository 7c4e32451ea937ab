"""Training rows: reading, ordering, collating and prefetching."""
