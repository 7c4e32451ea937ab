"""Files that others wrote: rows, cells, archives and pictures are read here, for all programs."""
