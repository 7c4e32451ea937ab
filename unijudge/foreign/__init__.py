"""Readers of files that others wrote: rows, cells, archives and pictures, for all programs."""
