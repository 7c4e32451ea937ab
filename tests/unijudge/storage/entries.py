"""The entries of a folder or a store."""


def names(place):
    """The keys below a place."""
    return sorted(path.removeprefix(place.path).strip("/") for path in place.fs.find(place.path))
