"""Exports a finished run as a folder that other libraries load."""
