"""HTTP connections to a service, with the proxies and certificates of the environment.

Requests to this machine never go through a proxy, so that no proxy sees their keys.
"""

import ipaddress
import os
import socket
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from unijudge.errors import SettingsError
from unijudge.provenance import without_passwords
from unijudge.storage.access_errors import in_one_line

FROM_OUTSIDE = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""Environment variables that decide how a service is reached. The names of proxies may be in lower case too."""


LARGEST_PORT = 65535


def open_http(url: str, **options: Any) -> httpx2.AsyncClient:
    """Returns an HTTP client for one service.

    Args:
        url: The URL of the service.
        options: Options of `httpx2.AsyncClient`. With a `transport`, the environment is ignored.

    Raises:
        InvalidURL: `url` is not a valid URL.
        SettingsError: A proxy or a certificate of the environment cannot be used.
    """
    port = httpx2.URL(url).port
    if port is not None and port > LARGEST_PORT:
        raise httpx2.InvalidURL(f"port {port} is larger than {LARGEST_PORT}")
    try:
        return httpx2.AsyncClient(trust_env=not is_here(url), **options)
    except (ImportError, ValueError, OSError) as error:
        names = {
            name for upper in FROM_OUTSIDE for name in (upper, upper.lower()) if name in os.environ
        }
        raise SettingsError(
            f"{without_passwords(url)}: cannot be reached with the environment's proxy or certificate "
            f"({in_one_line(error)}). Fix or unset {', '.join(sorted(names)) or 'its proxy and certificate variables'}"
        ) from error


def is_nowhere(error: BaseException | None) -> bool:
    """Whether a request failed because the name of a host is not known here."""
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__ or error.__context__
    return error is not None


def nowhere(url: str, error: Exception) -> str:
    """Returns the message for an unknown host name."""
    return (
        f"{without_passwords(url)}: the host name is not known here{by_way_of(url)} ({in_one_line(error)}). "
        "Correct the URL, or check this machine's name service (DNS)"
    )


def is_here(url: str) -> bool:
    """Whether a URL names this machine.

    Example:
        >>> is_here("http://127.0.0.1:8000"), is_here("http://judge:8000")
        (True, False)
    """
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def by_way_of(url: str) -> str:
    """Returns the proxy between this machine and a service, for a message; an empty text without a proxy."""
    parts = urlsplit(url)
    proxies = getproxies()
    kind = parts.scheme if parts.scheme in proxies else "all"
    if is_here(url) or kind not in proxies or proxy_bypass(parts.hostname or ""):
        return ""

    # The proxy comes from an environment variable, or from the settings of the operating system.
    source = "the system's settings"
    for name in (f"{kind}_proxy", f"{kind}_proxy".upper()):
        if name in os.environ:
            source = name
            break
    return f" through the proxy {without_passwords(proxies[kind])} ({source})"
