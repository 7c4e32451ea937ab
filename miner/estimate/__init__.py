"""What a scoring job will cost, before it runs."""
