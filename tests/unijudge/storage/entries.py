"""The entries of a folder or a store."""


def names(place):
    """The keys under a place."""
    return sorted(path.removeprefix(place.path).strip("/") for path in place.fs.find(place.path))
