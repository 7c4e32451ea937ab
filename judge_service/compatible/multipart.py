"""Reads the parts of a multipart/form-data body (RFC 7578) that is already in memory."""

from email.message import Message
from email.parser import BytesHeaderParser

from judge_service.front.errors import HttpError

MOST_PARTS = 1000


def parts_of(content_type: str, body: bytes) -> dict[str, bytes]:
    r"""Returns the content of each part by its name.

    Args:
        content_type: The header `Content-Type`, which names the boundary.
        body: The bytes of the body.

    Raises:
        HttpError: The body is incomplete, has too many parts, or has parts without a name or with equal names.

    Example:
        >>> body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
        >>> parts_of("multipart/form-data; boundary=x", body)
        {'a': b'1'}
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise _bad("Content-Type: multipart without a boundary. Let the client write this header")

    # The first boundary may be the beginning of the body. The last boundary is followed by two hyphens.
    delimiter = b"\r\n--" + boundary.encode("ascii", "replace")
    _, *pieces = (b"\r\n" + body).split(delimiter, MOST_PARTS + 2)
    if len(pieces) > MOST_PARTS + 1:
        raise HttpError(
            413, "too_large", f"the body has more than {MOST_PARTS} parts. Send fewer images"
        )
    if not pieces or not pieces[-1].startswith(b"--"):
        raise _bad("the body has no last boundary, so a part is missing. Send the whole body")

    parts: dict[str, bytes] = {}
    for place, piece in enumerate(pieces[:-1]):
        head, _, content = piece.partition(b"\r\n\r\n")
        headers = BytesHeaderParser().parsebytes(head.lstrip())
        name = headers.get_param("name", header="content-disposition")
        if not isinstance(name, str):
            raise _bad(f"part {place} of the body has no name. Name it in Content-Disposition")
        if name in parts:
            raise _bad(
                f"two parts of the body are named {name[:40]!r}. Give each part its own name"
            )
        parts[name] = content
    return parts


def _bad(message: str) -> HttpError:
    return HttpError(422, "bad_request", message)
