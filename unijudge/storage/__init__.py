"""Files, folders and object stores: atomic writes, one place for all reads, and one writer for each output."""
