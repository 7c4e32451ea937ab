"""Files, folders and stores: written whole, read in one place, locked by one writer."""
