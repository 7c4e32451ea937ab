"""Imports the layouts of other tools and datasets, with one module for each layout."""
