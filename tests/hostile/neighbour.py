"""An honest caller in a process of its own, one request after the other: python neighbour.py PORT.

It ends with its input, and prints how long each answer took, in seconds: what an attack costs the process of the test
is not counted.
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
    """Asks once; whether there was an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(ASKED)
        heard = b""
        while piece := connection.recv(2**16):
            heard += piece
    return heard.startswith(b"HTTP/1.1 200 ")


def main() -> None:
    """Asks until standard input ends."""
    times = []
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        begun = time.monotonic()
        if answered(int(sys.argv[1])):
            times.append(time.monotonic() - begun)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
