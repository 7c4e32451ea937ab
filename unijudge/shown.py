"""Foreign values in messages: a value is cut to sixty characters, and a list to five names."""

import re
from collections.abc import Collection, Mapping
from itertools import islice

LONGEST = 60
"""The most characters of a foreign value in a message."""
NAMED = 5
"""The most names of a foreign list in a message."""
LONGEST_MESSAGE = 600
LONGEST_WORD = 200
"""The most characters of a path or a URL in a message. No person types a longer word."""

_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}|[^\s/]{{{LONGEST + 1},}}")


def shown(value: object) -> str:
    """Returns a foreign value for a message, as Python writes it. Bytes are counted, and long values are cut.

    Example:
        >>> shown("a" * 1000), shown({"bytes": bytes(9000), "path": None}), shown(7)
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…'", "{'bytes': 9,000 bytes, 'path': None}", '7')
    """
    return _cut(_written(value), "'" if isinstance(value, str) else "")


def shown_name(name: str) -> str:
    r"""Returns a foreign name for a message, without quotes, in one line, and cut if it is long.

    Example:
        >>> shown_name("a\nb.png")
        'a\\nb.png'
    """
    return _cut(repr(name[:LONGEST])[1:-1] + name[LONGEST:][:1])


def listed(names: Collection[object]) -> str:
    """Returns the first foreign names, and the number of further names.

    Example:
        >>> listed(range(3000)), listed({"b", "a"})
        ('0, 1, 2, 3, 4 and 2,995 more', 'a, b')
    """
    has_order = isinstance(names, list | tuple | range | Mapping)
    ordered = names if has_order else sorted(map(str, names))
    first = ", ".join(shown_name(str(name)) for name in islice(ordered, NAMED))
    if len(names) <= NAMED:
        return first
    return f"{first} and {len(names) - NAMED:,} more"


def in_brief(message: str) -> str:
    """Cuts a message to six hundred characters: its beginning, and its end with the cure.

    Example:
        >>> in_brief("nowhere: no such file; check the path")
        'nowhere: no such file; check the path'
        >>> len(in_brief("a/b" * 1000 + ": no such file")), len(in_brief("a b " * 1000))
        (73, 600)
    """

    def shortened(word: re.Match[str]) -> str:
        return f"{word[0][:40]}…{word[0][-(LONGEST - 41) :]}"

    text = _LONG_WORD.sub(shortened, message)
    if len(text) <= LONGEST_MESSAGE:
        return text
    end = LONGEST_MESSAGE // 3
    beginning = LONGEST_MESSAGE - end - len(" … ")
    return f"{text[:beginning]} … {text[-end:]}"


def _written(value: object) -> str:
    """Returns about the first sixty characters of a value's text, without writing a large value in full."""
    match value:
        case bytes():
            return f"{len(value):,} bytes"
        case str():
            return repr(value[: LONGEST + 1])
        case int() if value.bit_length() > 4 * LONGEST:
            return "a number of many digits"
        case Mapping():
            pairs = (
                f"{_written(key)}: {_written(item)}" for key, item in islice(value.items(), NAMED)
            )
            return f"{{{', '.join(pairs)}{', …' if len(value) > NAMED else ''}}}"
        case list() | tuple():
            items = ", ".join(_written(item) for item in islice(value, NAMED))
            return f"[{items}{', …' if len(value) > NAMED else ''}]"
    return repr(value)


def _cut(text: str, quote: str = "") -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1 - len(quote)]}…{quote}"
