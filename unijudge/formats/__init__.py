"""The folders and tables that the programs write and read."""
