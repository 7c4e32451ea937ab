"""Bearer keys: the service knows only their sha256, and compares in constant time."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

OPEN_ROUTES = frozenset({"/healthz", "/readyz"})
"""What a prober may ask without a key; everything else is denied by default, unknown routes included."""


def new_key() -> tuple[str, str]:
    """A fresh key, and the digest of it that goes into the settings."""
    key = f"uj-{secrets.token_urlsafe(32)}"
    return key, digest_of(key)


def digest_of(key: str) -> str:
    """The sha256 of a key, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_allowed(path: str, authorization: str | None, digests: Sequence[str]) -> bool:
    """Whether a request may pass: an open route, no keys configured, or one of them presented.

    Args:
        path: Of the request, as the router will see it.
        authorization: The header, `Bearer KEY`.
        digests: sha256 of the keys that are accepted; empty: everybody may pass.

    Example:
        >>> is_allowed("/v1/score", "Bearer secret", [digest_of("secret")])
        True
        >>> is_allowed("/v1/score", "Bearer secre", [digest_of("secret")])
        False
    """
    if not digests or path in OPEN_ROUTES:
        return True
    scheme, _, key = (authorization or "").partition(" ")
    presented = digest_of(key)
    found = False
    for digest in digests:  # all of them, always: the time must not tell which one nearly matched
        found |= hmac.compare_digest(presented, digest.lower())
    return found and scheme.lower() == "bearer"
