"""Sixty captioned images, and the commands that mine negatives for them: `make quickstart`."""
