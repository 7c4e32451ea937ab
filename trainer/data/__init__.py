"""Training rows: read, ordered, collated and prepared ahead."""
