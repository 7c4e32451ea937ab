"""The embedded default: makes a tiny model and data, then runs the whole pipeline."""
