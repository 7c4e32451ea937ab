"""Fits a judge's calibration to labelled pairs."""
