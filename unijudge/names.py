"""The names of files that a table or a manifest gives: a stranger wrote them, and they decide what is read."""

import re

OUTSIDE = r"^\.?$|^/|(^|/)\.\.(/|$)|://|\\|\x00"
"""What a name of a file inside a folder never matches; for Python and for Arrow."""
SHOWN = 60
"""Characters of a strange name in a message."""


def inside(name: str) -> str:
    """The name of a file inside a folder, as it is.

    Raises:
        ValueError: It leads out of the folder, is absolute or a URL, or is read otherwise on another system.

    Example:
        >>> inside("a b/c#1.png")
        'a b/c#1.png'
    """
    if re.search(OUTSIDE, name):
        raise ValueError(f"{name[:SHOWN]!r} is not a path inside the folder")
    return name
