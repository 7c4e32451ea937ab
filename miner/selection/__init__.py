"""Turns scores into training rows by choosing hard negatives among the candidates."""
