"""The shapes in which clients of other servers send texts and images → the content of a query or a candidate.

An image is a `data:` URL or base64. An address of an image is never opened. Since a judge's prompt has the image of a
side before its text, the order of the parts of a side does not matter.

Sources:
    The public documentation of OpenRouter, Jina and NVIDIA NIM (`{"text", "image"}`), of vLLM and SGLang (parts), of
    Cohere v1 (`rank_fields`), and of OpenAI (`input_text`, `input_image`, `input_json`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from judge_service.front.errors import HttpError
from unijudge.content import Content
from unijudge.judging.protocol import image_bytes
from unijudge.shown import shown

TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})


def content_of(where: str, value: Any, rank_fields: Sequence[str] = ()) -> Content:
    r"""Reads a query or a document.

    Args:
        where: The place of the value in the request, for messages.
        value: A text, `{"text", "image"}`, `{"content": parts}`, or a list of parts.
        rank_fields: The fields of an object that are judged, as `field: value` lines (Cohere v1).

    Raises:
        HttpError: The value has another shape, or holds an image that is not inside the request.

    Example:
        >>> content_of("query", "a cat")
        Content(text='a cat', image=None)
        >>> content_of("documents.0", {"content": [{"type": "text", "text": "a cat"}]})
        Content(text='a cat', image=None)
        >>> content_of("documents.0", {"title": "Cats", "year": 1871}, ["title", "year"])
        Content(text='title: Cats\nyear: 1871', image=None)
    """
    match value:
        case str() if value.startswith("data:image/"):
            return Content(image=image_of(where, value))
        case str():
            return Content(text=value)
        case list():
            return joined(
                where, [_part(f"{where}.{place}", part) for place, part in enumerate(value)]
            )
        case {"content": list() | str() as inner}:
            return content_of(f"{where}.content", inner)
        case dict() if rank_fields:
            lines = [f"{field}: {value[field]}" for field in rank_fields if field in value]
            return Content(text="\n".join(lines))
        case dict() if "text" in value or "image" in value:
            return Content(_text(where, value.get("text")), image_of(where, value.get("image")))
    raise _bad(
        where,
        f"{shown(value)} is neither a text, nor an object with text or image, nor a list of parts",
    )


def joined(where: str, contents: Iterable[Content]) -> Content:
    """Returns one content with the lines of all texts, and the only image.

    Raises:
        HttpError: There is more than one image.
    """
    contents = list(contents)
    texts = [content.text for content in contents if content.text is not None]
    images = [content.image for content in contents if content.image is not None]
    if len(images) > 1:
        raise _bad(
            where,
            f"{len(images)} images. A side of a pair has at most one image: combine the images into one",
        )
    return Content("\n".join(texts) if texts else None, images[0] if images else None)


def _part(where: str, part: Any) -> Content:
    match part:
        case str():
            return Content(text=part)
        case {"type": "refusal", "refusal": text}:
            return Content(text=_text(where, text))
        case {"type": "input_json", "data": data}:
            return Content(text=json.dumps(data, ensure_ascii=False))
        case {"type": str() as kind} if kind in TEXT_PARTS:
            return Content(text=_text(where, part.get("text")))
        case {"type": str() as kind} if kind in IMAGE_PARTS:
            return Content(image=image_of(where, _url(part)))
        case {"type": str() as kind}:
            raise _bad(where, f"a part of type {shown(kind)}. Send parts of type text or image_url")
    raise _bad(where, 'a part without a type. Send parts such as {"type": "text", "text": …}')


def _url(part: Mapping[str, Any]) -> Any:
    url = part.get("image_url", part.get("image"))
    return url.get("url") if isinstance(url, dict) else url


def _text(where: str, text: Any) -> str | None:
    if text is None or isinstance(text, str):
        return text
    raise _bad(f"{where}.text", f"{shown(text)} is not a text")


def image_of(where: str, image: Any) -> bytes | None:
    """Decodes an image, a `data:` URL or base64. None: there is no image.

    Raises:
        HttpError: The image is an address, or not base64.
    """
    if image is None:
        return None
    if not isinstance(image, str):
        raise _bad(f"{where}.image", "is not a text. Send a data: URL or base64 of the image file")
    if image[:4].lower() == "http":
        raise _bad(
            f"{where}.image",
            "an address is never opened. Send the image as data:image/png;base64,…",
        )
    try:
        return image_bytes(image)
    except ValueError as error:
        raise _bad(f"{where}.image", str(error)) from error


def _bad(where: str, reason: str) -> HttpError:
    return HttpError(422, "bad_request", f"{where}: {reason}")
