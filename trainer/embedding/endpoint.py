"""An OpenAI-compatible embedding endpoint: `POST URL/v1/embeddings`.

What is sent, with `texts = "messages"`, one request for each content:

    {"model": …, "encoding_format": "float", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}, {"type": "text", "text": …}]}]}

which is vLLM's extension for chat embeddings: the server puts the turn into the model's own chat template. With
`texts = "input"` contents without an image are sent in OpenAI's form, a batch in a request, and the server tokenises
them as they are: {"model": …, "encoding_format": "float", "input": [text, …]}. Images always go as messages;
their bytes are sent as they are, and the server scales them. Every request also has the fields of `extra`.

Source: the OpenAI API reference, "Create embeddings"; vLLM's documentation of its OpenAI-compatible server, "Chat
embeddings".
"""

import asyncio
import base64
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event

from trainer.embedding.base import Identity
from trainer.embedding.settings import EndpointSettings
from unijudge.client.keys import read_key
from unijudge.client.patience import Patience, backoff
from unijudge.content import Content
from unijudge.errors import EndpointBusy, EndpointError, EndpointNowhere, SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import Vectors
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.reaching import by_way_of, is_nowhere, nowhere, open_http

PATH = "/v1/embeddings"
MEDIA = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"RI": "webp"}


class _Embedding(BaseModel):
    index: int
    embedding: list[float]


class _Answer(BaseModel):
    data: list[_Embedding]


class SharedPatience(Patience):
    """The patience of a batch of requests, each in its thread: the first one that gives up does so for all."""

    def __init__(self, seconds: float):
        """Nothing is answered yet."""
        super().__init__(seconds, EndpointNowhere)
        self.over = threading.Event()
        """Set when nothing more is to be tried; it wakes those who wait for their next try."""

    def is_over(self, state: RetryCallState) -> bool:
        """See `Patience`; also whether another request has given up."""
        if super().is_over(state):
            self.over.set()
        return self.over.is_set()


class Endpoint:
    """Embeds over HTTP; retries what can be retried."""

    def __init__(self, settings: EndpointSettings):
        """Opens nothing yet.

        Raises:
            SettingsError: The model is not named, the key is none, or a proxy or a certificate of the environment
                cannot be used.
            DataError: The key's file cannot be read.
        """
        if not settings.model:
            raise SettingsError("endpoint.model: required; the name under which the endpoint serves it")
        self._settings = settings
        key = read_key(settings.key_file)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = open_http(settings.url, timeout=settings.timeout_s, headers=headers)
        except httpx2.InvalidURL as error:
            raise SettingsError(f"endpoint.url: not a URL ({error}); expected http://host:port") from error
        self._loop = asyncio.new_event_loop()  # of its own, since only there a request as a whole has a deadline
        threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True).start()
        form = ", ".join(["endpoint", settings.texts, *(f"{name}={value}" for name, value in settings.extra.items())])
        self.identity = Identity(model=settings.model, weights="as served", encoding=form)

    def check_texts(self, corpus: Corpus) -> None:
        """See `System`. Nothing is known of the server's limit: it says so itself."""

    def prepare(self, content: Content) -> str | dict[str, Any]:
        """See `System`: a text for `input`, or one turn of a chat."""
        if self._settings.texts == "input" and content.image is None:
            return content.text or ""
        return turn_of(content)

    def embed(self, prepared: Sequence[str | dict[str, Any]]) -> Vectors:
        """See `System`."""
        requests: list[tuple[list[int], dict[str, Any]]] = [
            ([place], {"messages": [one]}) for place, one in enumerate(prepared) if isinstance(one, dict)
        ]
        texts = {place: one for place, one in enumerate(prepared) if isinstance(one, str)}
        if texts:
            requests.append((list(texts), {"input": list(texts.values())}))
        found: dict[int, list[float]] = {}
        patience = SharedPatience(self._settings.retry_for_s)
        with ThreadPoolExecutor(self._settings.max_in_flight) as pool:
            asked = [pool.submit(self._ask, what, len(places), patience) for places, what in requests]
            try:
                for (places, _), answer in zip(requests, asked, strict=True):
                    found.update(zip(places, answer.result(), strict=True))
            finally:  # after an error: those that wait for their next try are woken, the others never begin
                patience.over.set()
                pool.shutdown(wait=False, cancel_futures=True)
        widths = {len(vector) for vector in found.values()}
        if len(widths) > 1:
            raise EndpointError(f"{self._settings.url}: vectors of widths {sorted(widths)}; is it one model?")
        return np.array([found[place] for place in range(len(prepared))], np.float32)

    def _ask(self, what: dict[str, Any], expected: int, patience: SharedPatience) -> list[list[float]]:
        if patience.over.is_set():
            raise EndpointBusy(f"{self._settings.url}: not asked, since others got no answer")
        retrying = Retrying(
            stop=patience.is_over,
            sleep=sleep_using_event(patience.over),
            wait=backoff,
            retry=retry_if_exception(lambda error: isinstance(error, EndpointBusy)),
            reraise=True,
        )
        body = {"model": self._settings.model, "encoding_format": "float", **self._settings.extra, **what}
        content = retrying(self._once, body)
        patience.answered()
        url = self._settings.url
        try:
            answer = sorted(_Answer.model_validate_json(content).data, key=lambda one: one.index)
        except ValidationError as error:
            raise EndpointError(f"{url}{PATH}: answered no embeddings ({error.errors()[0]['msg']})") from error
        if [one.index for one in answer] != list(range(expected)):
            raise EndpointError(f"{url}{PATH}: asked for {expected} embeddings, {len(answer)} came")
        return [one.embedding for one in answer]

    def _once(self, body: dict[str, Any]) -> bytes:
        url = self._settings.url.rstrip("/") + PATH
        try:
            response = asyncio.run_coroutine_threadsafe(self._post(url, json.dumps(body).encode()), self._loop).result()
        except TimeoutError as error:
            raise EndpointBusy(
                f"{url}: no whole answer in endpoint.timeout_s = {self._settings.timeout_s:g}; raise it, or lower "
                "endpoint.max_in_flight"
            ) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise EndpointError(f"{url}: not a URL ({error}); set endpoint.url to http://host:port") from error
        except httpx2.TransportError as error:
            if is_nowhere(error):
                raise EndpointNowhere(nowhere(url, error)) from error
            raise EndpointBusy(f"{url}: no answer{by_way_of(url)} ({in_one_line(error)}); is it up?") from error
        except httpx2.RequestError as error:
            raise EndpointError(
                f"{url}: its answer cannot be read ({type(error).__name__}: {error}); look at what stands between"
            ) from error
        if response.is_success:
            content: bytes = response.content
            return content
        said = f"{url}: {response.status_code}: {' '.join(response.text.split())[:200]}"
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise EndpointBusy(said)
        form = next(name for name in ("messages", "input") if name in body)
        raise EndpointError(
            f"{said}; it was asked in the form `{form}`: see endpoint.texts, endpoint.model and the key"
        )

    async def _post(self, url: str, body: bytes) -> httpx2.Response:
        async with asyncio.timeout(self._settings.timeout_s):
            return await self._http.post(url, content=body, headers={"Content-Type": "application/json"})


def turn_of(content: Content) -> dict[str, Any]:
    """The turn of a user who shows a content, as vLLM's chat embeddings take it."""
    parts: list[dict[str, Any]] = []
    if content.image is not None:
        data = base64.b64encode(content.image).decode()
        url = f"data:image/{MEDIA.get(content.image[:2], 'jpeg')};base64,{data}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    if content.text:
        parts.append({"type": "text", "text": content.text})
    return {"role": "user", "content": parts}
