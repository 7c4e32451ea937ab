"""Sixty captioned pictures, and the commands that mine them: `make quickstart`."""
