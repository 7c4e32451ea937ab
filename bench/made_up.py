"""Generated inputs for benchmarks: sentences, vectors and training rows, and a scripted judge behind Ray Serve."""

import contextlib
import hashlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.dataset import Example
from unijudge.alike import Excluded, sign_of
from unijudge.content import Content
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import (
    VectorManifest,
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)

UNIJUDGE = (sys.executable, "-m", "unijudge")
SCRIPTED_JUDGE = {"model.backend": "scripted", "front.max_ongoing_requests": 32}
WORDS = (
    "red seven bridge photo under table cat street green blue train window two child river stone"
)

BATCH, NEGATIVES = 8, 8
KINDS = [(True, False)] * 5 + [(False, True)] * 2 + [(True, True)]
"""Whether query and candidates are images, for the eight rows of a batch. In MMEB the shares are 61, 25 and 14 %."""


def sentence(dice: random.Random, words: int) -> str:
    """Returns a sentence of random words."""
    return " ".join(dice.choices(WORDS.split(), k=words))


def make_vectors(corpus_folder: Path, folder: Path, width: int) -> None:
    """Writes vectors in clusters of about a hundred. Each query is close to its positive, and closer to a few others.

    Equal queries have equal vectors, as with a real model.
    """
    corpus, numbers = Corpus(corpus_folder), np.random.default_rng(1)
    num_items, num_queries = len(corpus.items), len(corpus.queries)
    centres = numbers.normal(size=(max(1, num_items // 100), width)).astype(np.float32)
    items = centres[numbers.integers(0, len(centres), num_items)]
    items += 0.8 * numbers.normal(size=items.shape).astype(np.float32)
    positives = items[[int(corpus.positives(row)[0]) for row in range(num_queries)]]
    queries = positives + 0.8 * numbers.normal(size=positives.shape).astype(np.float32)
    first: dict[bytes, int] = {}
    queries = queries[
        [first.setdefault(query.key, row) for row, query in enumerate(corpus.queries)]
    ]
    manifest = VectorManifest(
        corpus=corpus.fingerprint, model="made up", weights="0", encoding="none", width=width, dtype="float32",
        items=num_items, queries=num_queries, min_pixels=1, max_pixels=1, model_dtype="none",
    )  # fmt: skip
    start_vectors(folder, manifest)
    made: list[tuple[Any, Any, Any]] = [
        ("items", corpus.item_ids, items),
        ("queries", corpus.query_ids, queries),
    ]
    for kind, ids, vectors in made:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for path, rows in missing_vector_parts(folder, manifest, kind):
            write_vectors_part(
                path,
                manifest,
                ids[rows.start : rows.stop].to_pylist(),
                unit[rows.start : rows.stop],
            )


def training_rows(batches: int, repeats: int, seed: int) -> list[list[Example]]:
    """Returns generated rows in batches. Each candidate occurs `repeats` times, and each query once.

    The text of a candidate has two words, as a label, or twelve words, as a caption. The text of a query has twelve
    words, or fifty words, as a dialogue. Every text also has a number.
    """
    dice = random.Random(seed)  # noqa: S311  reproducible, not secret

    def picture() -> bytes:
        out = io.BytesIO()
        size = dice.choice([(640, 480), (480, 640), (500, 375), (512, 512), (640, 360)])
        Image.frombytes("RGB", (8, 8), dice.randbytes(192)).resize(size).save(
            out, "JPEG", quality=90
        )
        return out.getvalue()

    def content(*lengths: int, image: bool) -> Content:
        return (
            Content("Represent the given image.\n", picture())
            if image
            else Content(f"{sentence(dice, dice.choice(lengths))} {dice.randrange(10**4)}")
        )

    def pool(*, images: bool) -> list[Content]:
        draws = batches * (1 + NEGATIVES) * sum(kind[1] == images for kind in KINDS)
        found = [content(2, 2, 2, 12, image=images) for _ in range(-(-draws // repeats))] * repeats
        dice.shuffle(found)
        return found

    pools = {images: pool(images=images) for images in (False, True)}
    return [
        [_example(content(12, 50, image=q), pools[c], dice) for q, c in KINDS]
        for _ in range(batches)
    ]


def _example(query: Content, pool: list[Content], dice: random.Random) -> Example:
    taken = [pool.pop() for _ in range(1 + NEGATIVES)]
    keys = [hashlib.sha256(repr(one).encode()).digest() for one in taken]
    signs = [
        sign_of(one.text, hashlib.sha256(one.image).hexdigest() if one.image else None)
        for one in taken
    ]
    teacher = [dice.uniform(0.5, 0.9), *(dice.uniform(0.0, 0.8) for _ in range(NEGATIVES))]
    return Example(query, taken, keys, signs, teacher, Excluded(frozenset([signs[0].content])))


class Service:
    """`judge serve` on a free port of this machine. The service can be stopped and restarted on the same port."""

    def __init__(
        self,
        settings: Mapping[str, object],
        environment: Mapping[str, str] = MappingProxyType({}),
        command: Sequence[str] = (*UNIJUDGE, "judge", "serve"),
    ):
        """Starts nothing yet.

        Args:
            settings: Overrides of the service's settings, by their dotted names.
            environment: Environment variables in addition to those of this process.
            command: The command that starts the service.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [*command, f"port={self.port}"]
        for name, value in settings.items():
            self._command += [f"{name}={value}"]
        self._environment = os.environ | environment
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  open as long as the service

    def start(self) -> None:
        """Starts the service, and does not wait until the service is ready."""
        self.process = subprocess.Popen(
            self._command, stdout=self._log, stderr=self._log, env=self._environment
        )

    def stop(self) -> None:
        """Stops the service with SIGINT, as a user does, and waits for its end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(120)

    def printed(self) -> list[str]:
        """Returns all lines that the service has printed, including earlier starts."""
        self._log.seek(0)
        return [line.strip() for line in self._log if line.strip()]

    def wait_until_ready(self, start_s: float) -> None:
        """Waits until all replicas are ready.

        Raises:
            RuntimeError: The replicas were not ready in time. The message contains the last error of the service.
        """
        deadline = time.monotonic() + start_s
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()  # noqa: S310  our own http:// URL
                return
            time.sleep(0.2)

        lines = self.printed()
        errors = [line for line in lines if line.startswith("error: ")]
        reason = (errors or lines or ["no output"])[-1]
        ended = self.process.poll() is not None
        state = (
            f"ended with status {self.process.returncode}"
            if ended
            else f"was not ready after {start_s:g} s"
        )
        raise RuntimeError(f"the service {state}: {reason}")


@contextlib.contextmanager
def serving(settings: Mapping[str, object] = SCRIPTED_JUDGE, start_s: float = 120) -> Iterator[str]:
    """Starts a judge service on this machine, yields its URL when the service is ready, and stops it at the end.

    Args:
        settings: Overrides of the service's settings, by their dotted names.
        start_s: Time limit of the start, in seconds.

    Raises:
        RuntimeError: The service did not become ready. The message contains its last error.
    """
    with running(Service(settings), start_s) as service:
        yield service.url


@contextlib.contextmanager
def running(service: Service, start_s: float = 120) -> Iterator[Service]:
    """Starts a service, yields it when it is ready, and stops it at the end. Raises the errors of `serving`."""
    service.start()
    try:
        service.wait_until_ready(start_s)
        yield service
    finally:
        service.stop()
