"""An OpenAI-compatible embedding endpoint: `POST URL/v1/embeddings`.

With `texts = "messages"`, each content is one request:

    {"model": …, "encoding_format": "float", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}, {"type": "text", "text": …}]}]}

This is vLLM's extension for chat embeddings: the server applies the model's own chat template to the turn. With
`texts = "input"`, contents without an image are sent in OpenAI's form, a batch in one request:

    {"model": …, "encoding_format": "float", "input": [text, …]}

The server then tokenises the unmodified texts. Images are always sent as messages. The bytes of an image file are sent
unmodified, and the server scales the image. Every request also has the fields of `extra`.

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
from unijudge.images.file_kind import image_kind
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.reaching import by_way_of, is_nowhere, nowhere, open_http

PATH = "/v1/embeddings"


class _Embedding(BaseModel):
    index: int
    embedding: list[float]


class _Answer(BaseModel):
    data: list[_Embedding]


class SharedPatience(Patience):
    """The patience of a batch of requests, each in its own thread. The first request that gives up ends all retries."""

    def __init__(self, seconds: float):
        """Starts the clock."""
        super().__init__(seconds, EndpointNowhere)
        self.over = threading.Event()
        """The event that ends all retries and wakes the requests that wait for their next retry."""

    def is_over(self, state: RetryCallState) -> bool:
        """Returns whether to give up, as `Patience` does, or because another request has given up."""
        if super().is_over(state):
            self.over.set()
        return self.over.is_set()


class Endpoint:
    """A system that embeds over HTTP, with retries."""

    def __init__(self, settings: EndpointSettings):
        """Prepares the connection. The first request opens it.

        Raises:
            SettingsError: The settings name no model, the key is invalid, or a proxy or a certificate from the
                environment cannot be used.
            DataError: The file of the key cannot be read.
        """
        if not settings.model:
            raise SettingsError(
                "endpoint.model: required. Give the name under which the endpoint serves the model"
            )
        self._settings = settings
        key = read_key(settings.key_file)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = open_http(settings.url, timeout=settings.timeout_s, headers=headers)
        except httpx2.InvalidURL as error:
            raise SettingsError(
                f"endpoint.url: not a URL ({error}). Use the form http://host:port"
            ) from error
        # asyncio gives a whole request a deadline, including its answer.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True).start()
        form = ", ".join(
            [
                "endpoint",
                settings.texts,
                *(f"{name}={value}" for name, value in settings.extra.items()),
            ]
        )
        self.identity = Identity(model=settings.model, weights="as served", encoding=form)

    def check_texts(self, corpus: Corpus) -> None:
        """Checks nothing. The limit of the server is unknown, so the server itself reports texts that are too long."""

    def prepare(self, content: Content) -> str | dict[str, Any]:
        """Returns a text for `input`, or a turn of a chat, as `System.prepare` does."""
        if self._settings.texts == "input" and content.image is None:
            return content.text or ""
        return turn_of(content)

    def embed(self, prepared: Sequence[str | dict[str, Any]]) -> Vectors:
        """Embeds the prepared contents, as `System.embed` does."""
        requests: list[tuple[list[int], dict[str, Any]]] = [
            ([index], {"messages": [turn]})
            for index, turn in enumerate(prepared)
            if isinstance(turn, dict)
        ]
        texts = {index: text for index, text in enumerate(prepared) if isinstance(text, str)}
        if texts:
            requests.append((list(texts), {"input": list(texts.values())}))
        vectors: dict[int, list[float]] = {}
        patience = SharedPatience(self._settings.retry_for_s)
        with ThreadPoolExecutor(self._settings.max_in_flight) as pool:
            futures = [
                pool.submit(self._ask, fields, len(indices), patience)
                for indices, fields in requests
            ]
            try:
                for (indices, _), answer in zip(requests, futures, strict=True):
                    vectors.update(zip(indices, answer.result(), strict=True))
            finally:  # after an error, waiting retries end at once and queued requests never start
                patience.over.set()
                pool.shutdown(wait=False, cancel_futures=True)
        widths = {len(vector) for vector in vectors.values()}
        if len(widths) > 1:
            raise EndpointError(
                f"{self._settings.url}: the vectors have different widths {sorted(widths)}. Check that all replicas "
                "serve the same model"
            )
        return np.array([vectors[index] for index in range(len(prepared))], np.float32)

    def _ask(
        self, fields: dict[str, Any], expected: int, patience: SharedPatience
    ) -> list[list[float]]:
        if patience.over.is_set():
            raise EndpointBusy(
                f"{self._settings.url}: request not sent, since other requests got no answer"
            )
        retrying = Retrying(
            stop=patience.is_over,
            sleep=sleep_using_event(patience.over),
            wait=backoff,
            retry=retry_if_exception(lambda error: isinstance(error, EndpointBusy)),
            reraise=True,
        )
        body = {
            "model": self._settings.model,
            "encoding_format": "float",
            **self._settings.extra,
            **fields,
        }
        content = retrying(self._once, body)
        patience.answered()
        url = self._settings.url
        try:
            answer = sorted(
                _Answer.model_validate_json(content).data, key=lambda entry: entry.index
            )
        except ValidationError as error:
            raise EndpointError(
                f"{url}{PATH}: the answer holds no embeddings ({error.errors()[0]['msg']}). Check endpoint.url"
            ) from error
        if [entry.index for entry in answer] != list(range(expected)):
            raise EndpointError(
                f"{url}{PATH}: expected {expected} embeddings, but the answer holds {len(answer)}"
            )
        return [entry.embedding for entry in answer]

    def _once(self, body: dict[str, Any]) -> bytes:
        url = self._settings.url.rstrip("/") + PATH
        try:
            response = asyncio.run_coroutine_threadsafe(
                self._post(url, json.dumps(body).encode()), self._loop
            ).result()
        except TimeoutError as error:
            raise EndpointBusy(
                f"{url}: no complete answer within endpoint.timeout_s = {self._settings.timeout_s:g}. Raise "
                "endpoint.timeout_s, or lower endpoint.max_in_flight"
            ) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise EndpointError(
                f"{url}: not a URL ({error}). Set endpoint.url to http://host:port"
            ) from error
        except httpx2.TransportError as error:
            if is_nowhere(error):
                raise EndpointNowhere(nowhere(url, error)) from error
            raise EndpointBusy(
                f"{url}: no answer{by_way_of(url)} ({in_one_line(error)}). Check that the endpoint is running"
            ) from error
        except httpx2.RequestError as error:
            raise EndpointError(
                f"{url}: the answer cannot be read ({type(error).__name__}: {error}). Check the proxies between this "
                "machine and the endpoint"
            ) from error
        if response.is_success:
            content: bytes = response.content
            return content
        message = f"{url}: {response.status_code}: {' '.join(response.text.split())[:200]}"
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise EndpointBusy(message)
        form = next(name for name in ("messages", "input") if name in body)
        raise EndpointError(
            f"{message}. The request had the form `{form}`. Check endpoint.texts, endpoint.model and the key"
        )

    async def _post(self, url: str, body: bytes) -> httpx2.Response:
        async with asyncio.timeout(self._settings.timeout_s):
            return await self._http.post(
                url, content=body, headers={"Content-Type": "application/json"}
            )


def turn_of(content: Content) -> dict[str, Any]:
    """Returns a user's turn with the image and the text of a content, in the form of vLLM's chat embeddings."""
    parts: list[dict[str, Any]] = []
    if content.image is not None:
        data = base64.b64encode(content.image).decode()
        url = f"data:image/{image_kind(content.image) or 'jpeg'};base64,{data}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    if content.text:
        parts.append({"type": "text", "text": content.text})
    return {"role": "user", "content": parts}
