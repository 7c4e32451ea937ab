"""Training rows in, adapters and numbers out."""
