"""The folders and tables that programs write and read."""
