"""Three kinds of systems with one method: a model of unijudge, a sentence-transformers model, and an endpoint."""

import base64
import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import numpy as np
import pytest
from tenacity import RetryCallState

from tests.pictures import png
from trainer.benchmarks.settings import BenchmarkSettings
from trainer.benchmarks.systems import open_system
from trainer.embedding.endpoint import Endpoint, SharedPatience
from trainer.embedding.sentence_transformers import _files_sha256
from trainer.embedding.settings import EndpointSettings
from unijudge.content import Content
from unijudge.errors import (
    DataError,
    EndpointBusy,
    EndpointError,
    EndpointNowhere,
    ModelError,
    SettingsError,
)
from unijudge.storage.reaching import FROM_OUTSIDE

CONTENTS = [
    Content(text="a red square"), Content(image=png("red")), Content(text="Which colour?", image=png("green")),
    Content(text="a white square"),
]  # fmt: skip


def opened(root, **more):
    return open_system(BenchmarkSettings(root=root, **more))


def vectors_of(system, contents):
    return system.embed([system.prepare(content) for content in contents])


@contextlib.contextmanager
def serving(answer):
    """An endpoint that answers the JSON of a request with (status, JSON) from `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, said = answer(self.path, self.headers, body)
            data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def content_of(message):
    """The content of a chat message, read as a server reads it."""
    image, text = None, None
    for part in message["content"]:
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/png;base64"
            image = base64.b64decode(data)
        else:
            text = part["text"]
    return Content(text, image)


@pytest.mark.parametrize("form", ["messages", "input"])
def test_our_model_served_by_an_endpoint_is_the_same_system(model, tmp_path, form):
    ours = opened(tmp_path, model=model)
    expected = vectors_of(ours, CONTENTS)
    assert expected.shape == (4, 128)
    assert np.allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    lock, seen = threading.Lock(), []

    def answer(path, headers, body):
        assert (path, headers["Authorization"]) == ("/v1/embeddings", "Bearer secret")
        assert (body["model"], body["encoding_format"], body["dimensions"]) == (
            "tiny",
            "float",
            128,
        )
        if "messages" in body:
            (turn,) = body["messages"]
            assert turn["role"] == "user"
            contents = [content_of(turn)]
        else:
            contents = [Content(text=text) for text in body["input"]]
        with lock:
            seen.append(len(contents))
            vectors = vectors_of(ours, contents)
        data = [
            {"index": place, "embedding": vector.tolist()} for place, vector in enumerate(vectors)
        ]
        return 200, {"object": "list", "data": data[::-1], "model": "tiny"}

    (tmp_path / "key").write_text("secret\n")
    with serving(answer) as url:
        endpoint = {
            "url": url,
            "model": "tiny",
            "key_file": tmp_path / "key",
            "texts": form,
            "extra": {"dimensions": 128},
        }
        system = opened(tmp_path, system="endpoint", endpoint=endpoint)
        found = vectors_of(system, CONTENTS)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)
    assert sorted(seen) == ([1, 1, 1, 1] if form == "messages" else [1, 1, 2])
    assert system.identity.encoding == f"endpoint, {form}, dimensions=128"


@pytest.mark.parametrize(
    ("status", "said", "error", "reason"),
    [
        (
            404,
            {"error": "no model tiny"},
            EndpointError,
            "404: .*no model tiny.*had the form `messages`. Check endpoint.texts",
        ),
        (503, "starting", EndpointBusy, "503: starting"),
        (200, {"data": []}, EndpointError, "expected 1 embeddings, but the answer holds 0"),
        (
            200,
            {"data": [{"index": 0, "embedding": ["x"]}]},
            EndpointError,
            "the answer holds no embeddings",
        ),
        (200, "<html>", EndpointError, "the answer holds no embeddings"),
    ],
)
def test_an_unexpected_answer_of_an_endpoint_is_an_error(tmp_path, status, said, error, reason):
    with serving(lambda *_: (status, said)) as url:
        system = opened(
            tmp_path, system="endpoint", endpoint={"url": url, "model": "tiny", "retry_for_s": 0.1}
        )
        with pytest.raises(error, match=reason):
            vectors_of(system, CONTENTS[:1])


def test_a_busy_endpoint_is_retried(tmp_path):
    answers = iter([(429, "later"), (200, {"data": [{"index": 0, "embedding": [0.5, 0.5]}]})])
    with serving(lambda *_: next(answers)) as url:
        system = opened(tmp_path, system="endpoint", endpoint={"url": url, "model": "tiny"})
        assert vectors_of(system, CONTENTS[:1]).tolist() == [[0.5, 0.5]]
    system = opened(
        tmp_path, system="endpoint", endpoint={"url": url, "model": "tiny", "retry_for_s": 0.1}
    )
    with pytest.raises(EndpointBusy, match="no answer"):
        vectors_of(system, CONTENTS[:1])


class Odd(BaseHTTPRequestHandler):
    """An endpoint that sends its answers byte by byte, in the head or in the body, or as incomplete gzip."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if "gzip" in self.path:
            self.wfile.write(
                b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
            )
            return
        self.wfile.write(
            b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if "body" in self.path else b"x-waits: ")
        )
        with contextlib.suppress(OSError):
            while not self.server.over.wait(0.05):
                self.wfile.write(b".")
                self.wfile.flush()

    def log_message(self, *_):
        pass


@pytest.fixture
def odd():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.over = threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("place", ["head", "body"])
def test_an_endpoint_that_answers_byte_by_byte_is_given_up(odd, tmp_path, place):
    options = {"url": f"{odd}/{place}", "model": "tiny", "timeout_s": 0.5, "retry_for_s": 0.1}
    with pytest.raises(
        EndpointBusy, match=r"no complete answer within endpoint\.timeout_s = 0\.5\. Raise"
    ):
        vectors_of(opened(tmp_path, system="endpoint", endpoint=options), CONTENTS[:1])


def test_an_answer_that_cannot_be_unpacked_is_reported_in_one_line(odd, tmp_path):
    options = {"url": f"{odd}/gzip", "model": "tiny"}
    with pytest.raises(EndpointError, match=r"the answer cannot be read .DecodingError"):
        vectors_of(opened(tmp_path, system="endpoint", endpoint=options), CONTENTS[:1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://proxy:9"),
        ("HTTP_PROXY", "ftp://proxy"),
        ("SSL_CERT_FILE", "/nowhere/at/all"),
    ],
)
def test_an_unusable_proxy_or_certificate_is_named_and_not_used_for_this_machine(
    tmp_path, monkeypatch, name, value
):
    for one in (*FROM_OUTSIDE, *(one.lower() for one in FROM_OUTSIDE)):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(
        SettingsError,
        match=rf"http://far:1: cannot be reached with the environment's proxy .*unset {name}$",
    ):
        opened(tmp_path, system="endpoint", endpoint={"url": "http://far:1", "model": "tiny"})
    with serving(lambda *_: (200, {"data": [{"index": 0, "embedding": [0.5]}]})) as url:
        for here in (url, url.replace("127.0.0.1", "localhost")):
            system = opened(tmp_path, system="endpoint", endpoint={"url": here, "model": "tiny"})
            assert vectors_of(system, CONTENTS[:1]).tolist() == [[0.5]]


def test_systems_without_a_model_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"endpoint\.model: required"):
        opened(tmp_path, system="endpoint")
    with pytest.raises(SettingsError, match=r"sentence_transformers\.name: required"):
        opened(tmp_path, system="sentence-transformers")


def test_a_sentence_transformers_folder_embeds_texts_images_and_both(tiny_model, tmp_path):
    """The reference is the library's own `encode`, with the tiny model."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from unijudge.images.decoding import open_image

    base = Transformer(str(tiny_model))
    SentenceTransformer(modules=[base, Pooling(128, pooling_mode="lasttoken")], device="cpu").save(
        str(tmp_path / "st")
    )
    name = {"name": str(tmp_path / "st"), "device": "cpu"}
    system = opened(tmp_path, system="sentence-transformers", sentence_transformers=name)
    theirs = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    picture = {"image": open_image(CONTENTS[2].image), "text": "Which colour?"}
    expected = [
        theirs.encode(one)
        for one in ("a red square", open_image(CONTENTS[1].image), picture, "a white square")
    ]
    assert vectors_of(system, CONTENTS) == pytest.approx(np.array(expected), abs=1e-4)

    def weights():
        return opened(
            tmp_path, system="sentence-transformers", sentence_transformers=name
        ).identity.weights

    for left in (".cache/huggingface/download", "empty"):  # left by a download, and by a person
        (tmp_path / "st" / left).mkdir(parents=True)
    (tmp_path / "st" / ".cache" / "notes.json").write_text("{}")
    assert system.identity.weights == weights()
    (tmp_path / "st" / "1_Pooling" / "config.json").rename(
        tmp_path / "st" / "1_Pooling" / "other.json"
    )
    assert _files_sha256(tmp_path / "st") != system.identity.weights
    with pytest.raises(ModelError, match="sentence-transformers cannot load this model"):
        opened(
            tmp_path,
            system="sentence-transformers",
            sentence_transformers={"name": str(tmp_path / "nowhere")},
        )


def test_a_model_of_texts_alone_refuses_images(tiny_model, tmp_path):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    words = StaticEmbedding(
        Tokenizer.from_file(str(tiny_model / "tokenizer.json")), embedding_dim=8
    )
    SentenceTransformer(modules=[words], device="cpu").save(str(tmp_path / "st"))
    name = {"name": str(tmp_path / "st"), "device": "cpu"}
    system = opened(tmp_path, system="sentence-transformers", sentence_transformers=name)
    assert vectors_of(system, CONTENTS[:1]).shape == (1, 8)
    with pytest.raises(DataError, match=r"cannot embed this input .+ The model accepts text"):
        vectors_of(system, CONTENTS[1:2])


def test_a_dead_endpoint_is_waited_for_once(tmp_path):
    """The wait does not repeat for each group of requests: when one request gives up, all requests give up, and waiting
    requests never begin.
    """
    asked, lock = set(), threading.Lock()

    def dead(path, headers, body):
        with lock:
            asked.add(content_of(body["messages"][0]).text)
        return 503, "loading"

    with serving(dead) as url:
        options = {"url": url, "model": "tiny", "retry_for_s": 0.3, "max_in_flight": 2}
        system = opened(tmp_path, system="endpoint", endpoint=options)
        with pytest.raises(EndpointBusy, match="503: loading"):
            vectors_of(system, [Content(text=f"text {number}") for number in range(40)])
    assert asked == {"text 0", "text 1"}


def test_the_retry_time_counts_from_the_last_answer_to_any_request(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    patience = SharedPatience(10)
    begun = RetryCallState(None, None, (), {})
    now[0] = 109.0
    assert not patience.is_over(begun)
    patience.answered()
    now[0] = 118.0
    assert not patience.is_over(begun)
    begun.upcoming_sleep = 1.5
    assert patience.is_over(begun), "its next try would come too late"
    patience.answered()
    assert patience.is_over(begun), "who gave up has given up for all"


def test_an_endpoint_with_an_unknown_host_name_is_given_up_soon(monkeypatch):
    def nowhere():
        raise httpx2.ConnectError("Name or service not known") from socket.gaierror(
            -2, "Name or service not known"
        )

    now, tries = [0.0], []
    system = Endpoint(EndpointSettings(url="http://embedr:8000", model="m", retry_for_s=300))

    async def post(url, body):
        tries.append(now[0])
        now[0] += 10
        nowhere()

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("trainer.embedding.endpoint.backoff", lambda state: 0)
    monkeypatch.setattr(system, "_post", post)
    with pytest.raises(
        EndpointNowhere, match=r"embedr:8000/v1/embeddings: the host name is not known here"
    ):
        system.embed(["a"])
    assert tries == [0, 10, 20]


class LikeClip:
    """A model of texts and of pictures that accepts no input with both, and no batch with both."""

    modalities = ("text", "image")

    def __init__(self, name, **_):
        self.batches = []

    def supports(self, modality):
        return modality in self.modalities

    def encode(self, inputs, **_):
        kinds = {type(one) for one in inputs}
        if len(kinds) > 1 or dict in kinds:
            raise ValueError("mixes multiple modalities")
        self.batches.append(len(inputs))
        return np.array(
            [[1.0, len(one) if isinstance(one, str) else one.size[0]] for one in inputs]
        )


def test_a_model_like_clip_embeds_texts_and_pictures_separately_without_the_instruction(
    tmp_path, monkeypatch
):
    import sentence_transformers

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", LikeClip)
    system = opened(
        tmp_path,
        system="sentence-transformers",
        sentence_transformers={"name": str(tmp_path)},
        instruction="Describe.",
    )
    contents = [
        Content("ab"),
        Content("Describe.\n", png(size=(60, 40))),
        Content("abcd"),
        Content(image=png()),
    ]
    assert vectors_of(system, contents).tolist() == [[1, 2], [1, 60], [1, 4], [1, 60]]
    assert system._model.batches == [2, 2]
    assert system.identity.encoding.endswith(", images without the instruction")
    with pytest.raises(
        DataError,
        match=r"embed this input \(ValueError: mixes .*\)\. The model accepts text, image",
    ):
        vectors_of(system, [Content("another text", png())])
