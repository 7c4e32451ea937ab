"""Whether a judge works, known by what it scored: an engine can hang while its process answers every ping.

Alive: a real pair was scored in the last seconds, or one is scored now. Fit: Yes and No are what the model answers
with, and a pair that anybody would call a match scores above one that nobody would: of texts, and of pictures, since a
judge without its vision tower reads well. A judge that was found unfit scores nothing until it is fit again. It tries
known pairs by itself, so that a probe is answered from memory: a probe never waits behind the work. A judge that is
busy is never called dead.
"""

import asyncio
import contextlib
import io
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

from judge_service.settings import HealthSettings
from unijudge.content import Content
from unijudge.errors import JudgeBroken, JudgeRefused, JudgeUnavailable
from unijudge.judging.verdicts import Chooser, Judge, JudgeIdentity, ListVerdict, PairError, Verdict

KNOWN_QUERY = Content(text="Find the sentence that says: seven apples lie on the table.")
KNOWN_YES = Content(text="Seven apples lie on the table.")
KNOWN_NO = Content(text="The train to the airport leaves at noon.")


logger = logging.getLogger(__name__)


def _picture(color: tuple[int, int, int]) -> bytes:
    """One that is not square, of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (110, 100), color).save(out, "PNG")
    return out.getvalue()


DO_NOT_FIT = "Chat template, label words, image processor or model do not fit"
NOT_SEEN = (
    "It reads and does not see: the weights of its vision tower, its image processor or the image token of its chat "
    "template do not fit"
)
OF_ITS_OWN = (
    "A judge that was taught another world than plain English and colours may be sound: health.canary_every_s = 0"
)
KNOWN_RED, KNOWN_BLUE = (Content(image=_picture(color)) for color in ((220, 20, 20), (20, 20, 220)))
ASKED_RED, ASKED_BLUE = (Content(text=f"Find a picture that is {color} all over.") for color in ("red", "blue"))


@dataclass(frozen=True)
class KnownPair:
    """What a judge said of the known pairs: of texts, and of pictures."""

    texts: tuple[Verdict, Verdict]
    """Of the match, and of the mismatch."""
    pictures: tuple[tuple[Verdict, Verdict], ...]
    """The same, twice: what matches in one question does not in the other, so a constant answer is never right."""

    @property
    def mass(self) -> float:
        """The mean probability of Yes and No together, with texts."""
        return sum(verdict.mass for verdict in self.texts) / 2

    def __str__(self) -> str:
        texts, pictures = _in_words(*self.texts), "; ".join(_in_words(*pair) for pair in self.pictures)
        return f"{texts}; Yes and No have {self.mass:.3g} of the probability; with pictures {pictures}"

    def fault(self, min_mass: float) -> str | None:
        """Which checks failed, and by how much; None where none did."""
        read = _leads(*self.texts) > 0
        seen = all(_leads(*pair) > 0 for pair in self.pictures)
        faults = []
        if not read:
            faults.append(
                f"a pair that matches scores {self.texts[0].score:.3f}, one that does not {self.texts[1].score:.3f} "
                f"({_behind(*self.texts)}): this judge cannot tell them apart"
            )
        if self.mass < min_mass:
            faults.append(
                f"Yes and No together have a mean probability of {self.mass:.3g} on known pairs, less than "
                f"health.min_label_mass = {min_mass:g}: the model is not answering the question"
            )
        if not seen:
            failed = next(pair for pair in self.pictures if _leads(*pair) <= 0)
            faults.append(
                f"a picture of the colour that is asked for scores {failed[0].score:.3f}, one of another colour "
                f"{failed[1].score:.3f} ({_behind(*failed)}): this judge cannot tell pictures apart"
            )
        if not faults:
            return None
        why = NOT_SEEN if read and self.mass >= min_mass else DO_NOT_FIT
        passed = [name for name, right in (("texts", read), ("pictures", seen)) if right]
        told = f"; the known pair of {passed[0]} is told apart" if len(passed) == 1 else ""
        return f"{'; '.join(faults)}{told}. {why}. {OF_ITS_OWN}"


def _leads(match: Verdict, other: Verdict) -> float:
    return match.log_odds - other.log_odds


def _behind(match: Verdict, other: Verdict) -> str:
    return f"{-_leads(match, other):.2f} log-odds behind" if _leads(match, other) else "the very same"


def _in_words(match: Verdict, other: Verdict) -> str:
    return f"a match scores {match.score:.3f}, a mismatch {other.score:.3f}"


@runtime_checkable
class ReplicaProgress(Protocol):
    """A judge that says when it last finished a part of any request, even of one whose caller has left."""

    @property
    def progressed_at(self) -> float:
        """Of time.monotonic()."""
        ...


class _Busy(Exception):
    """A known pair got no answer in time, but others did."""


class WatchedJudge:
    """Any judge, watched: every answer counts as a sign of life."""

    def __init__(self, judge: Judge, settings: HealthSettings):
        self._judge = judge
        self._settings = settings
        self._scored_at = self._canary_at = float("-inf")
        self._doubt = asyncio.Event()  # the judge said that it cannot answer
        self._unfit: str | None = None  # why, since the last look
        self._dead: str | None = None  # likewise

    @property
    def identity(self) -> JudgeIdentity:
        """Who answers."""
        return self._judge.identity

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order.

        Raises:
            JudgeUnavailable: It was found unfit.
        """
        self.check_fit()
        with self._doubted():
            return await self._answers(query, candidates)

    async def _answers(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        answers = await self._judge.judge(query, candidates)
        if any(isinstance(answer, Verdict) for answer in answers):
            self._scored_at = time.monotonic()
        return answers

    async def choose(self, query: Content, candidates: Sequence[Content]) -> ListVerdict | PairError:
        """Which of the candidates is the best, or why this list cannot be asked about.

        Raises:
            JudgeRefused: This judge answers pair by pair only.
            JudgeUnavailable: It was found unfit.
        """
        self.check_fit()
        if not isinstance(self._judge, Chooser):
            raise JudgeRefused(f"{self.identity} answers pair by pair only; ask /v1/score")
        with self._doubted():
            result = await self._judge.choose(query, candidates)
        if isinstance(result, ListVerdict):
            self._scored_at = time.monotonic()
        return result

    @contextlib.contextmanager
    def _doubted(self) -> Iterator[None]:
        """Notes when the judge says that it cannot answer."""
        try:
            yield
        except JudgeUnavailable:
            self._doubt.set()
            raise

    async def check_alive(self) -> None:
        """Returns if a real pair was scored lately and no answer failed since, or one can be scored now, or others are.

        Raises:
            JudgeUnavailable: It cannot, or not in time.
        """
        in_doubt = self._doubt.is_set()
        self._doubt.clear()
        try:
            if in_doubt or time.monotonic() - self._sign_of_life() > self._settings.liveness_window_s:
                await self._probe()
        except JudgeUnavailable as error:
            self._dead = str(error)
            raise
        except _Busy:
            logger.info("known pairs wait behind other work")
        self._dead = None

    async def check_ready(self) -> None:
        """As `check_alive`; and the judge is fit to judge.

        Raises:
            JudgeUnavailable: No pair can be scored.
            JudgeBroken: It answers with something else than Yes and No, or cannot tell a match from a mismatch, of
                texts or of pictures.
        """
        await self.check_alive()
        due = self._settings.canary_every_s
        if due and time.monotonic() - self._canary_at >= due:
            try:
                self._unfit = await self._fault()
            except _Busy:
                return  # tried again at the next look
            # An unfit judge is looked at again at the next look.
            self._canary_at = time.monotonic() if self._unfit is None else float("-inf")
        if self._unfit is not None:
            raise JudgeBroken(self._unfit)

    async def watch(self) -> None:
        """Looks whether the judge works and is fit, as often as the settings say, until it is cancelled.

        At once where it said that it cannot answer: a replica whose engine has died refuses faster than others answer,
        so the more requests come to it, the longer it stays.
        """
        every = min(self._settings.liveness_window_s, self._settings.canary_every_s or self._settings.liveness_window_s)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), every)
            try:
                await self.check_ready()
            except JudgeBroken as error:
                logger.warning("this judge scores nothing until it is fit again: %s", error)
            except JudgeUnavailable as error:
                logger.warning("this judge does not answer: %s", error)
            except Exception:  # a canary that fails in an unknown way must not end the watching
                logger.exception("known pairs could not be tried")

    def check_well(self) -> None:
        """Returns unless the judge was found dead or unfit when it was last looked at. Tries nothing.

        Raises:
            JudgeUnavailable: It was; another replica may be well.
        """
        self.check_fit()
        if self._dead is not None:
            raise JudgeUnavailable(f"this judge was found dead: {self._dead}")

    def check_fit(self) -> None:
        """Returns unless the judge was found unfit when it was last looked at. Tries nothing.

        Raises:
            JudgeUnavailable: It was; another replica may be fit.
        """
        if self._unfit is not None:
            raise JudgeUnavailable(f"this judge was found unfit, and scores nothing: {self._unfit}")

    def _sign_of_life(self) -> float:
        """When the judge last finished something, of time.monotonic()."""
        judge = self._judge
        return max(self._scored_at, judge.progressed_at) if isinstance(judge, ReplicaProgress) else self._scored_at

    async def _fault(self) -> str | None:
        """Why this judge is not fit to judge, by known pairs; None where it is.

        Raises:
            JudgeUnavailable, _Busy: They get no answer now.
        """
        try:
            known = await self.known()
        except (JudgeUnavailable, _Busy):
            raise
        except JudgeBroken as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  a model or an engine may fail in any way
            return f"known pairs cannot be judged ({type(error).__name__}: {error}). {DO_NOT_FIT}"
        return known.fault(self._settings.min_label_mass)

    async def known(self) -> KnownPair:
        """What the judge says of the known pairs.

        Raises:
            JudgeUnavailable, _Busy: They get no answer now.
            JudgeBroken: A picture gets no verdict.
        """
        texts = await self._probe()
        pictures = []
        for query, match, other in ((ASKED_RED, KNOWN_RED, KNOWN_BLUE), (ASKED_BLUE, KNOWN_BLUE, KNOWN_RED)):
            answers = await self._known(query, match, other)
            for answer in answers:
                if isinstance(answer, PairError):
                    raise JudgeBroken(f"a picture gets no verdict ({answer.code}: {answer.message}). {DO_NOT_FIT}")
            yes, no = (answer for answer in answers if isinstance(answer, Verdict))
            pictures.append((yes, no))
        return KnownPair(texts, tuple(pictures))

    async def _probe(self) -> tuple[Verdict, Verdict]:
        match await self._known(KNOWN_QUERY, KNOWN_YES, KNOWN_NO):
            case [Verdict() as yes, Verdict() as no]:
                return yes, no
            case answers:
                raise JudgeUnavailable(f"a known pair got no verdict: {answers}")

    async def _known(self, query: Content, *candidates: Content) -> list[Verdict | PairError]:
        """The answers to known pairs, asked whether or not the judge is fit.

        Raises:
            JudgeUnavailable: There are none in time.
            _Busy: There are none in time, but others got theirs.
        """
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._answers(query, candidates)
        except TimeoutError as error:
            if self._sign_of_life() > asked_at:
                raise _Busy from error
            message = f"no pair was scored in {self._settings.timeout_s:g} s: the engine hangs"
            raise JudgeUnavailable(message) from error
