"""A scoring job that records the outcome of each request, and counts the pairs in its shards at the end."""

import asyncio
import hashlib
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx2

from bench.made_up import make_vectors, sentence
from judge_service.backends.scripted import ScriptedJudge
from miner.scoring.job import score
from miner.settings import ScoreSettings
from tests.pictures import noise
from unijudge.client.client import JudgeClient
from unijudge.client.concurrency import FIRST_IN_FLIGHT
from unijudge.errors import UnijudgeError
from unijudge.formats.candidates import CandidateFolder
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import Judged, read_scores
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import Verdict

WIDTH = 32
K = 8
IN_FLIGHT = 24
QUERIES_IN_SHARD = 64
REQUEST_TIMEOUT_S, RETRY_FOR_S = 60, 240
WINDOW_S, NEARLY = 3, 0.9
"""Seconds for which the rate must be normal again, and the share of the old rate that counts as normal."""
POISON = 413
"""The number of the one harmful item, and of the query that has this item as its positive."""


@dataclass(frozen=True)
class Seen:
    """The outcome of one request."""

    at: float
    method: str
    outcome: str
    """The HTTP status, or the name of the network error."""
    has_retry_after: bool
    """Whether the answer has the header `Retry-After`."""


class Watched(httpx2.AsyncHTTPTransport):
    """A transport that records the outcome of each request."""

    def __init__(self, seen: list[Seen]):
        super().__init__(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))
        self._seen = seen

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request and reads the whole answer."""
        try:
            response = await super().handle_async_request(request)
            await response.aread()
        except BaseException as error:
            self._remember(request, type(error).__name__)
            raise
        self._remember(
            request, str(response.status_code), has_retry_after="Retry-After" in response.headers
        )
        return response

    def _remember(
        self, request: httpx2.Request, outcome: str, *, has_retry_after: bool = False
    ) -> None:
        self._seen.append(Seen(time.monotonic(), request.method, outcome, has_retry_after))


@dataclass
class Pairs:
    """The counts of the pairs of a completed job."""

    lost: int
    """Pairs without a verdict, except pairs of the harmful item."""
    repeated: int
    """Pairs that are in the shards more than once."""
    wrong: int
    """Pairs whose verdict differs from the scripted judge's verdict."""
    poisoned: Counter[str]
    """The error codes of the harmful item's pairs."""


class Job:
    """A scoring job with generated queries."""

    def __init__(
        self, folder: Path, queries: int, *, pictures: bool = False, poison: str = "", seed: int = 0
    ):
        """Creates the corpus of the job.

        Args:
            folder: An empty folder.
            queries: Number of queries.
            pictures: Whether each item has its own image.
            poison: The end of the harmful item's text. If it is empty, no item is harmful.
            seed: Seed of the images.
        """
        self._folder = folder
        self._poison = ""
        dice = random.Random(1)  # noqa: S311  reproducible, not secret
        images = folder / "pictures"
        images.mkdir()
        items = []
        for number in range(queries):
            text = f"{number}: {sentence(dice, 9)}"
            if poison and number == POISON:
                text = f"{number}: {poison}"
                self._poison = f"i{number}"
            name = digest = None
            if pictures:
                name, picture = f"{number}.png", noise(seed * queries + number)
                (images / name).write_bytes(picture)
                digest = hashlib.sha256(picture).hexdigest()
            items.append(
                Item(f"i{number}", ("made up",), text=text, image=name, image_sha256=digest)
            )
        asked = [
            Query(f"q{n}", "made up", (f"i{n}",), text=f"find {n}: {sentence(dice, 7)}")
            for n in range(queries)
        ]
        write_corpus(folder / "corpus", items, asked, images=images, rejects=0, source="made up")
        make_vectors(folder / "corpus", folder / "vectors", WIDTH)
        self.seen: list[Seen] = []
        self.is_running = True

    def run(self, url: str) -> str:
        """Runs the job, and returns "done" or its error."""
        settings = ScoreSettings(
            corpus=self._folder / "corpus",
            vectors=self._folder / "vectors",
            out=self._folder / "scores",
            service=url,
            k=K,
            max_in_flight=IN_FLIGHT,
            shard_size=QUERIES_IN_SHARD,
            request_timeout_s=REQUEST_TIMEOUT_S,
            retry_for_s=RETRY_FOR_S,
            min_label_mass=0,
        )
        try:
            with mock.patch("miner.scoring.job.open_client", self._client):
                score(settings, lambda _: None)
        except UnijudgeError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self.is_running = False
        return "done"

    def _client(self, settings: ScoreSettings) -> JudgeClient:
        return JudgeClient(
            settings.service,
            request_timeout_s=settings.request_timeout_s,
            retry_for_s=settings.retry_for_s,
            max_in_flight=settings.max_in_flight,
            first=FIRST_IN_FLIGHT,
            transport=Watched(self.seen),
        )

    def answered(self, since: float, until: float) -> int:
        """Returns the number of answered questions between two times of `time.monotonic`."""
        return len([at for at in self._answers() if since <= at < until])

    def _answers(self) -> list[float]:
        return [one.at for one in self.seen if one.method == "POST" and one.outcome == "200"]

    def recovered_s(self, since: float, rate: float) -> float | None:
        """Returns the seconds until answers came at a rate again; None if the job ended before.

        Args:
            since: The start time, on the clock of `time.monotonic`.
            rate: Answers per second.
        """
        answers = self._answers()
        enough = NEARLY * rate * WINDOW_S
        for begin in [since, *(at for at in answers if at > since)]:
            if begin + WINDOW_S > answers[-1]:
                return None
            if self.answered(begin, begin + WINDOW_S) >= enough:
                return begin - since
        return None

    def failures(self) -> tuple[Counter[str], int]:
        """Returns the error answers that permit no retry, and the number of requests that the network lost."""
        errors = Counter(
            f"{one.outcome} at {one.method}"
            for one in self.seen
            if one.outcome.isdecimal() and int(one.outcome) >= 400
            # After a 409 the client uploads images, and after `Retry-After` the client retries. Neither is an error.
            if one.outcome != "409" and not (one.outcome in {"429", "503"} and one.has_retry_after)
        )
        return errors, sum(not one.outcome.isdecimal() for one in self.seen)

    def pairs(self, *, scripted: bool) -> Pairs:
        """Counts the pairs in the shards.

        Args:
            scripted: Whether the judge was the scripted judge, so that its verdicts can be checked.
        """
        corpus = Corpus(self._folder / "corpus")
        counted: Counter[tuple[str, str]] = Counter()
        poisoned: Counter[str] = Counter()
        without = wrong = 0
        for row in read_scores(self._folder / "scores"):
            judged = [*row.positives, *row.candidates]
            counted.update((row.query_id, one.item_id) for one in judged)
            for one in judged:
                if one.error is not None and one.item_id == self._poison:
                    poisoned[one.error.partition(":")[0]] += 1
                elif one.error is not None:
                    without += 1
            if scripted:
                wrong += _wrong(corpus, row.query_id, judged)
        planned = int(CandidateFolder(self._folder / "scores" / "candidates").counts().sum()) + len(
            corpus.queries
        )
        missing = planned - len(counted)
        return Pairs(missing + without, sum(counted.values()) - len(counted), wrong, poisoned)


def _wrong(corpus: Corpus, query_id: str, judged: list[Judged]) -> int:
    """Returns the number of pairs whose verdict differs from the scripted judge's verdict."""
    query = corpus.content(corpus.queries[int(query_id[1:])])
    candidates = [corpus.content(corpus.items[corpus.row_of[one.item_id]]) for one in judged]
    truth = asyncio.run(ScriptedJudge(Prompt()).judge(query, candidates))
    return sum(
        isinstance(true, Verdict)
        and one.log_odds is not None
        and abs(one.log_odds - true.log_odds) > 1e-4
        for one, true in zip(judged, truth, strict=True)
    )
