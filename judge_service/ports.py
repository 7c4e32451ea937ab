"""Whether an address is free to listen on."""

import socket

from unijudge.errors import SettingsError


def check_free(host: str, port: int) -> None:
    """Returns if one can listen there. Ray would share a port with another judge of the same user, silently.

    Raises:
        SettingsError: One cannot.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}); is another judge running there? Set host or port"
        ) from error
