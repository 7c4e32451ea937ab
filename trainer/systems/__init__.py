"""What can be measured: anything that makes vectors of contents. One file for each kind."""
