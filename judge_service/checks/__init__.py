"""Checks of the machine before serving (`judge doctor`), and of the scores of a running service (`judge verify`)."""
