"""Exports selections to the layouts of other trainers, with one module for each layout."""
