"""Makes of a finished run a folder that other libraries load."""
