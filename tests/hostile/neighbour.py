"""An honest client in its own process, which sends one request after the other: python neighbour.py PORT.

The client ends when its standard input ends, and prints the seconds of each answer. Because of the separate process,
the measured times do not include the CPU time that an attack costs the test.
"""

import json
import select
import socket
import sys
import time

from tests.hostile.attacks import request

ASKED = request(
    b'{"query":{"text":"a"},"candidates":[{"text":"b"}]}', headers=["Connection: close"]
)
PAUSE_S = 0.02


def answered(port: int) -> bool:
    """Sends one request, and returns whether an answer came."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(ASKED)
        heard = b""
        while piece := connection.recv(2**16):
            heard += piece
    return heard.startswith(b"HTTP/1.1 200 ")


def main() -> None:
    """Sends requests until standard input ends."""
    times = []
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        begun = time.monotonic()
        if answered(int(sys.argv[1])):
            times.append(time.monotonic() - begun)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
