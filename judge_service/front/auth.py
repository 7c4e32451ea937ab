"""Bearer keys. The service only has the SHA-256 of each key, and compares digests in constant time."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

OPEN_ROUTES = frozenset({"/healthz", "/readyz"})
"""The routes of health probes, which need no key. All other routes need a key, including unknown routes."""


def new_key() -> tuple[str, str]:
    """Returns a new random key, and its digest for the settings."""
    key = f"uj-{secrets.token_urlsafe(32)}"
    return key, digest_of(key)


def digest_of(key: str) -> str:
    """Returns the SHA-256 of a key, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_allowed(path: str, authorization: str | None, digests: Sequence[str]) -> bool:
    """Whether a request may pass: its route is open, its key is accepted, or no key is required.

    Args:
        path: The path of the request, in the form that the router gets.
        authorization: The header `Authorization`, with the value `Bearer KEY`.
        digests: The SHA-256 of each accepted key. Empty: no key is required.

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

    # All digests are compared, so that the response time does not depend on which digest matches.
    is_accepted = False
    for digest in digests:
        is_accepted |= hmac.compare_digest(presented, digest.lower())
    return is_accepted and scheme.lower() == "bearer"
