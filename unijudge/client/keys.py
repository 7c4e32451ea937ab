"""Bearer keys, on the side that asks: read from a file, and refused where a header could not hold them."""

from pathlib import Path

from unijudge.errors import SettingsError
from unijudge.storage.files import read_text


def read_key(file: Path | None) -> str | None:
    """The key that stands in a file; None without a file.

    Raises:
        DataError: The file cannot be read.
        SettingsError: It holds no key.
    """
    return None if file is None else checked_key(read_text(file).strip(), str(file))


def checked_key(key: str | None, place: str) -> str | None:
    """A key as it is, if it can be one.

    Args:
        key: The key; None where the service wants none.
        place: Where it came from; the message never shows the key itself.

    Raises:
        SettingsError: It is blank, or has other characters than printable ASCII.

    Example:
        >>> checked_key("uj-1", "key"), checked_key(None, "key")
        ('uj-1', None)
    """
    if key is None or (key.strip() and key.isascii() and key.isprintable()):
        return key
    fault = "has characters that no key has" if key.strip() else "is blank"
    raise SettingsError(f"{place}: the key {fault}; put there what `unijudge judge key` printed, or set no key")
