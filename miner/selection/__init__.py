"""From scores to training rows: which candidates become hard negatives."""
