"""One training from its settings to its run folder, on any number of processes."""
