"""A scoring job whose client is watched: what each request came to, and what stands in the shards at the end."""

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
"""How long the rate must be the old one, and the share of it that counts as the old one: it varies by chance."""
POISON = 413
"""The number of the one item that does harm; the first query that has it is the one that it belongs to."""


@dataclass(frozen=True)
class Seen:
    """What one request came to."""

    at: float
    method: str
    outcome: str
    """The status; or the name of the network's error."""
    is_told: bool
    """Whether a refusal said when to come back."""


class Watched(httpx2.AsyncHTTPTransport):
    """The network; remembers what came back."""

    def __init__(self, seen: list[Seen]):
        super().__init__(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))
        self._seen = seen

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request, whole."""
        try:
            response = await super().handle_async_request(request)
            await response.aread()
        except BaseException as error:
            self._remember(request, type(error).__name__)
            raise
        self._remember(
            request, str(response.status_code), is_told="Retry-After" in response.headers
        )
        return response

    def _remember(self, request: httpx2.Request, outcome: str, *, is_told: bool = False) -> None:
        self._seen.append(Seen(time.monotonic(), request.method, outcome, is_told))


@dataclass
class Pairs:
    """What became of the pairs of a job that ended well."""

    lost: int
    """Without a verdict, those of the poison left out."""
    repeated: int
    wrong: int
    """With another verdict than the scripted judge gives."""
    poisoned: Counter[str]
    """The codes of the errors of the poison's pairs."""


class Job:
    """A scoring job of made-up queries."""

    def __init__(
        self, folder: Path, queries: int, *, pictures: bool = False, poison: str = "", seed: int = 0
    ):
        """Makes its corpus.

        Args:
            folder: An empty one.
            queries: How many.
            pictures: Whether each item has a picture of its own.
            poison: How the text of one item ends; empty: as those of the others.
            seed: Of the pictures.
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
        """Runs it, and tells how it ended."""
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
        """Questions that were answered in a time, of `time.monotonic`."""
        return len([at for at in self._answers() if since <= at < until])

    def _answers(self) -> list[float]:
        return [one.at for one in self.seen if one.method == "POST" and one.outcome == "200"]

    def recovered_s(self, since: float, rate: float) -> float | None:
        """Seconds until answers came at a rate again; None where the job ended before they did.

        Args:
            since: From when, of `time.monotonic`.
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
        """Answers that are errors and name no time for a retry; and how many requests the network lost."""
        said = Counter(
            f"{one.outcome} at {one.method}"
            for one in self.seen
            if one.outcome.isdecimal() and int(one.outcome) >= 400
            # The client sends images that the service lacks, and retries after the time that `Retry-After` says.
            if one.outcome != "409" and not (one.outcome in {"429", "503"} and one.is_told)
        )
        return said, sum(not one.outcome.isdecimal() for one in self.seen)

    def pairs(self, *, scripted: bool) -> Pairs:
        """What stands in the shards.

        Args:
            scripted: Whether the scripted judge has judged.
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
    """Pairs whose verdict is another one than the scripted judge gives."""
    query = corpus.content(corpus.queries[int(query_id[1:])])
    candidates = [corpus.content(corpus.items[corpus.row_of[one.item_id]]) for one in judged]
    truth = asyncio.run(ScriptedJudge(Prompt()).judge(query, candidates))
    return sum(
        isinstance(true, Verdict)
        and one.log_odds is not None
        and abs(one.log_odds - true.log_odds) > 1e-4
        for one, true in zip(judged, truth, strict=True)
    )
