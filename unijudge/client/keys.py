"""Bearer keys of a client: read from a file, and refused if an HTTP header cannot contain them."""

from pathlib import Path

from unijudge.errors import SettingsError
from unijudge.storage.files import read_text


def read_key(file: Path | None) -> str | None:
    """Reads a key from a file, or returns None without a file.

    Raises:
        DataError: The file cannot be read.
        SettingsError: The file does not hold a valid key.
    """
    return None if file is None else checked_key(read_text(file).strip(), str(file))


def checked_key(key: str | None, place: str) -> str | None:
    """Returns a key unchanged, after a check.

    Args:
        key: The key, or None for a service without keys.
        place: The source of the key, for the message, which never shows the key itself.

    Raises:
        SettingsError: The key is blank, or has characters other than printable ASCII.

    Example:
        >>> checked_key("uj-1", "key"), checked_key(None, "key")
        ('uj-1', None)
    """
    if key is None or (key.strip() and key.isascii() and key.isprintable()):
        return key
    fault = "has characters that no key has" if key.strip() else "is blank"
    raise SettingsError(
        f"{place}: the key {fault}. Use the key that `unijudge judge key` printed, or set no key"
    )
