"""Converts any text to one line of the page, without absolute paths of this machine."""

import re

LONGEST = 400
"""Maximum number of characters of a line."""
_PATH = re.compile(r"(?<![\w.:/…])/(?:[\w.@+~-]+/)*([\w.@+~-]+)/?")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def one_line(text: str) -> str:
    r"""Returns a text as one line, truncated if it is long, with only the last part of absolute paths.

    Example:
        >>> one_line("no config.json in /home/me/models/a:\n  check the path")
        'no config.json in …/a: check the path'
    """
    line = without_paths(" ".join(_COLOURS.sub("", text).split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def without_paths(text: str) -> str:
    """Returns a text with only the last part of absolute paths.

    Example:
        >>> without_paths("/dev/shm has 3 GiB; 12 pairs/s at http://127.0.0.1:8000/readyz")
        '…/shm has 3 GiB; 12 pairs/s at http://127.0.0.1:8000/readyz'
    """
    return _PATH.sub(r"…/\1", text)
