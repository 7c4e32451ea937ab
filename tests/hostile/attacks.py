"""Requests that no honest client sends, in groups, from a seed, as the bytes that are sent."""

import base64
import io
import json
import random
from collections.abc import Iterator

from PIL import Image

KEY = "hostile-key"
PATHS = (
    "/v1/score",
    "/v1/choose",
    "/v1/count",
    "/v1/identity",
    "/v1/blobs/0",
    "/readyz",
    "/healthz",
    "/",
)


def request(
    body: bytes = b"", *, method="POST", path="/v1/score", headers=(), length: str | None = None
) -> bytes:
    """One request, valid except for the given parts."""
    fields = ["Host: judge", f"Authorization: Bearer {KEY}", *headers]
    if length != "":
        fields.append(f"Content-Length: {len(body) if length is None else length}")
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *fields])
    return f"{head}\r\n\r\n".encode("latin-1") + body


def picture(dice: random.Random, form: str) -> bytes:
    """A small valid picture."""
    out = io.BytesIO()
    Image.frombytes("RGB", (8, 8), dice.randbytes(192)).resize((40, 30)).save(out, form)
    return out.getvalue()


def question(dice: random.Random) -> dict:
    """The JSON of a valid request."""
    image = base64.b64encode(picture(dice, dice.choice(["PNG", "JPEG", "WEBP"]))).decode()
    contents = [{"text": "a"}, {"image": image}, {"text": "b", "image": image}, {"text": ""}]
    return {
        "query": dice.choice(contents[:3]),
        "candidates": dice.choices(contents, k=dice.randrange(1, 4)),
    }


def mutated(dice: random.Random, data: bytes) -> bytes:
    """Bytes that are changed, deleted, repeated or inserted, one to eight times."""
    found = bytearray(data)
    for _ in range(dice.randrange(1, 9)):
        place = dice.randrange(len(found) + 1)
        end = min(len(found), place + dice.choice([1, 1, 2, 8, 100]))
        kind = dice.randrange(5)
        if kind == 0 and place < len(found):
            found[place] = dice.randrange(256)
        elif kind == 1:
            del found[place:end]
        elif kind == 2:
            found[place:place] = found[place:end]
        elif kind == 3:
            found[place:place] = dice.choice(
                [b"\0", b"\xff", b'"', b"{", b"[", b"\\", b"1e999", b"\r\n\r\n", b"\xed\xa0\x80"]
            )
        else:
            del found[place:]
    return bytes(found)


def mutated_bodies(dice: random.Random) -> bytes:
    """A valid question whose JSON is damaged."""
    return request(mutated(dice, json.dumps(question(dice)).encode()), path=dice.choice(PATHS[:3]))


def mutated_pictures(dice: random.Random) -> bytes:
    """A valid question whose picture is damaged."""
    data = mutated(dice, picture(dice, dice.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])))
    image = base64.b64encode(data).decode()
    return request(json.dumps({"query": {"text": "a"}, "candidates": [{"image": image}]}).encode())


def mutated_heads(dice: random.Random) -> bytes:
    """A complete request, damaged at any place."""
    return mutated(dice, request(json.dumps(question(dice)).encode(), path=dice.choice(PATHS)))


MUTATIONS = (mutated_bodies, mutated_pictures, mutated_heads)


def json_tricks() -> Iterator[bytes]:
    """JSON that is deep, wide, or not quite JSON."""
    sound = '{"query":{"text":"a"},"candidates":[{"text":"b"}]}'
    yield from (
        b"[" * 10**6,
        b'{"a":' * 10**5,
        b'"' + b"\\" * 10**6,
        b"\xef\xbb\xbf" + sound.encode(),
        b"\xff" * 1000,
    )
    yield from (
        sound.replace('"b"', value).encode()
        for value in ("NaN", "1e999", "-0", "[]", "{}", "null", "9" * 10**5)
    )
    yield sound.replace("a", "\\ud800").encode()
    yield sound.replace("a", "\\u0000").encode()
    yield sound.replace('"query"', '"query":{"text":"c"},"query"').encode()
    yield b'{"query":{"text":"a"},"candidates":[' + b"{}," * 10**6 + b"{}]}"
    yield json.dumps(
        {"query": {"text": "x" * 2 * 10**6}, "candidates": [{"text": "b"}] * 64}
    ).encode()
    yield json.dumps({"query": {"text": "a"}, "candidates": [{"image": "A" * 10**7}]}).encode()
    yield json.dumps(
        {"query": {"image_sha256": "0" * 64}, "candidates": [{"image_sha256": "f" * 64}]}
    ).encode()


def bombs() -> Iterator[bytes]:
    """Images that are small files with very many pixels, or that are no images."""
    for size in ((20_000, 2_400), (30_000, 30_000), (1, 20_000), (65_000, 2)):
        out = io.BytesIO()
        Image.new("1", size).save(out, "PNG", optimize=True)
        yield out.getvalue()
    frames = [Image.new("P", (4, 4), color) for color in range(250)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    yield out.getvalue()
    yield from (b"", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4", b"<svg/>", b"GIF89a", b"RIFF0000WEBPVP8 ")


def head_tricks() -> Iterator[bytes]:
    """Heads that try to control proxies, have wrong lengths, or request a path that does not exist."""
    body = b'{"query":{"text":"a"},"candidates":[{"text":"b"}]}'
    values = ("nan", "inf", "-1", "0", "1e400", "abc", "", "9" * 5000, "1,2")
    yield from (request(body, headers=[f"Judge-Timeout: {value}"]) for value in values)
    for header in (
        "X-Request-Timeout-Seconds: 0", "X-Request-Disconnect-Disabled: ?1", "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked", "Content-Encoding: gzip", "Expect: 100-continue", "Expect: nonsense",
        "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA", 'If-Match: "',
        'If-Match: *, W/"x"',
        "Host: a:b:c", "Content-Length: 5", "Serve_Multiplexed_Model_Id: ../../x", "X-Request-Id: " + "x" * 9000,
        "X-Request-Id: \xff\xfe", "serve-multiplexed-model-id: \xff", "X-Session-Id: \xff", "X-Serve-Router-Key: \xff",
        "Judge-Alone: 1", "Judge-Alone: 2", "Judge-Request: " + "0" * 32, "Judge-Request: ../../x",
        "Cookie: " + "a" * 60_000, "Range: bytes=0-1", "Authorization: Bearer \xff\xfe", "X-\x01: y", "NoColon",
    ):  # fmt: skip
        yield request(body, headers=[header])
    yield from (
        request(body, length=length)
        for length in ("-1", "1e3", "99999999999999999999", "0x10", "", "+50")
    )
    for path in (
        "//v1/score", "/v1/score/", "/v1/../v1/score", "/%2e%2e/v1/score", "/v1/score?x=" + "y" * 60_000,
        "/v1/blobs/..%2f..%2fetc", "/v1/blobs/" + "a" * 64, "http://elsewhere/v1/score", "*", "/-/routes", "/-/healthz",
        "/docs", "/openapi.json", "/\xff",
    ):  # fmt: skip
        yield from (
            request(body, method=method, path=path)
            for method in ("GET", "POST", "PUT", "OPTIONS", "TRACE")
        )
    yield from (
        request(body, method=method)
        for method in ("CONNECT", "DELETE", "PATCH", "HEAD", "X" * 2000, "\x00")
    )
    yield b"\r\n" * 1000 + request(body)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    yield request(body) * 100
    yield f"GET / HTTP/1.1\r\nHost: a\r\n{'X: y' * 1}\r\n".encode() + b"A: b\r\n" * 20_000 + b"\r\n"
    yield b"GET / HTTP/1.1\r\nHost: " + b"a" * 2**20 + b"\r\n\r\n"
    yield (
        b"POST /v1/score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 50_000
    )
    yield b"POST /v1/score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx"
    yield b"POST /v1/score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nx\r\n0\r\n\r\n"


def endless() -> Iterator[tuple[bytes, bytes]]:
    """(the beginning of a request, a piece that is repeated forever). No part of such a request is a body."""
    chunked = request(b"", headers=["Transfer-Encoding: chunked"], length="")
    yield b"GET /", b"a" * 2**16
    yield b"GET / HTTP/1.1\r\nX: ", b"a" * 2**16
    yield b"GET / HTTP/1.1\r\n", b"Abc: defg\r\n" * 6000
    yield b"", b"GET / HTTP/1.1\r\n\r\n" * 5000
    yield b"", request(b"{}") * 500
    yield chunked + b"1;", b"extension;" * 6000
    yield chunked + b"1\r\nx\r\n0\r\n", b"Trailer: x\r\n" * 6000
    yield chunked, b"1\r\nx\r\n" * 6000


def single() -> Iterator[bytes]:
    """All requests that are sent once."""
    yield from map(request, json_tricks())
    for data in bombs():
        image = base64.b64encode(data).decode()
        yield request(
            json.dumps({"query": {"text": "a"}, "candidates": [{"image": image}] * 3}).encode()
        )
        yield request(data, method="PUT", path="/v1/blobs/" + "a" * 64)
    yield from head_tricks()
