"""Checks whether a judge works, by its scores. An engine can hang while its process still answers every ping.

A judge is alive if it scored a real pair in the last seconds, or if it can score a known pair now. A busy judge counts
as alive.

A judge is fit if it answers with Yes and No, and if a clear match scores above a clear mismatch. This is checked with
texts and with pictures, since a judge without its vision tower still understands texts. An unfit judge scores no pairs
until it is fit again.

The known pairs are scored in the background, so a health probe is answered from memory and never waits behind requests.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from judge_service.replica.known_pairs import (
    ASKED_BLUE,
    ASKED_RED,
    DO_NOT_FIT,
    KNOWN_BLUE,
    KNOWN_NO,
    KNOWN_QUERY,
    KNOWN_RED,
    KNOWN_YES,
    KnownPair,
)
from judge_service.settings import HealthSettings
from unijudge.content import Content
from unijudge.errors import JudgeBroken, JudgeRefused, JudgeUnavailable
from unijudge.judging.verdicts import Chooser, Judge, JudgeIdentity, ListVerdict, PairError, Verdict

logger = logging.getLogger(__name__)


@runtime_checkable
class ReplicaProgress(Protocol):
    """A judge that reports the time of its last progress, even on a request whose caller has left."""

    @property
    def progressed_at(self) -> float:
        """The `time.monotonic()` of the last finished part of a request."""
        ...


class _Busy(Exception):
    """A known pair got no answer in time, but other pairs did."""


class WatchedJudge:
    """A judge with health checks. Every verdict counts as a sign of life."""

    def __init__(self, judge: Judge, settings: HealthSettings):
        self._judge = judge
        self._settings = settings
        self._scored_at = self._canary_at = float("-inf")
        self._doubt = asyncio.Event()
        """Set when the judge raised JudgeUnavailable: the next check comes immediately."""
        self._unfit: str | None = None
        """The reason, if the last check found the judge unfit."""
        self._dead: str | None = None
        """The reason, if the last check found the judge dead."""

    @property
    def identity(self) -> JudgeIdentity:
        """The identity of the judge."""
        return self._judge.identity

    async def judge(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[Verdict | PairError]:
        """Returns one answer for each candidate, in order.

        Raises:
            JudgeUnavailable: The judge is unfit.
        """
        self.check_fit()
        with self._doubted():
            return await self._answers(query, candidates)

    async def _answers(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[Verdict | PairError]:
        answers = await self._judge.judge(query, candidates)
        if any(isinstance(answer, Verdict) for answer in answers):
            self._scored_at = time.monotonic()
        return answers

    async def choose(
        self, query: Content, candidates: Sequence[Content]
    ) -> ListVerdict | PairError:
        """Returns the best of the candidates, or the error of this list.

        Raises:
            JudgeRefused: This judge answers only pair by pair.
            JudgeUnavailable: The judge is unfit.
        """
        self.check_fit()
        if not isinstance(self._judge, Chooser):
            raise JudgeRefused(f"{self.identity} answers only pair by pair. Use /v1/score")
        with self._doubted():
            result = await self._judge.choose(query, candidates)
        if isinstance(result, ListVerdict):
            self._scored_at = time.monotonic()
        return result

    @contextlib.contextmanager
    def _doubted(self) -> Iterator[None]:
        """Requests an immediate check if the judge raises JudgeUnavailable."""
        try:
            yield
        except JudgeUnavailable:
            self._doubt.set()
            raise

    async def check_alive(self) -> None:
        """Checks that the judge is alive.

        A recently scored pair proves life, unless an answer failed since. Otherwise a known pair is scored now. If the
        judge makes progress on other requests meanwhile, the judge is alive too.

        Raises:
            JudgeUnavailable: The known pair got no verdict in time.
        """
        in_doubt = self._doubt.is_set()
        self._doubt.clear()
        try:
            if (
                in_doubt
                or time.monotonic() - self._sign_of_life() > self._settings.liveness_window_s
            ):
                await self._probe()
        except JudgeUnavailable as error:
            self._dead = str(error)
            raise
        except _Busy:
            logger.info("known pairs wait behind other requests")
        self._dead = None

    async def check_ready(self) -> None:
        """Checks that the judge is alive, and can tell matches from mismatches.

        Raises:
            JudgeUnavailable: No pair can be scored.
            JudgeBroken: The judge answers with other words than Yes and No, or cannot tell a match from a mismatch, in
                texts or in pictures.
        """
        await self.check_alive()
        interval_s = self._settings.canary_every_s
        if interval_s and time.monotonic() - self._canary_at >= interval_s:
            try:
                self._unfit = await self._fault()
            except _Busy:
                return  # the next check repeats this

            # An unfit judge is checked each time, so that the judge returns to work soon.
            self._canary_at = time.monotonic() if self._unfit is None else float("-inf")
        if self._unfit is not None:
            raise JudgeBroken(self._unfit)

    async def watch(self) -> None:
        """Checks the judge at the interval of the settings, until this task is cancelled.

        If the judge raised JudgeUnavailable, the check comes immediately. A dead engine rejects requests faster than
        healthy engines answer requests, so its replica would get more and more requests.
        """
        every = min(
            self._settings.liveness_window_s,
            self._settings.canary_every_s or self._settings.liveness_window_s,
        )
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), every)
            try:
                await self.check_ready()
            except JudgeBroken as error:
                logger.warning("this judge scores no pairs until it is fit again: %s", error)
            except JudgeUnavailable as error:
                logger.warning("this judge does not answer: %s", error)
            except Exception:  # a canary that fails in an unknown way must not end the checks
                logger.exception("known pairs could not be scored")

    def check_well(self) -> None:
        """Returns unless the last check found the judge dead or unfit. Starts no new check.

        Raises:
            JudgeUnavailable: The judge is dead or unfit. Another replica may work.
        """
        self.check_fit()
        if self._dead is not None:
            raise JudgeUnavailable(f"this judge is dead: {self._dead}")

    def check_fit(self) -> None:
        """Returns unless the last check found the judge unfit. Starts no new check.

        Raises:
            JudgeUnavailable: The judge is unfit. Another replica may be fit.
        """
        if self._unfit is not None:
            raise JudgeUnavailable(f"this judge is unfit, and scores no pairs: {self._unfit}")

    def _sign_of_life(self) -> float:
        """Returns the `time.monotonic()` of the judge's last progress."""
        if isinstance(self._judge, ReplicaProgress):
            return max(self._scored_at, self._judge.progressed_at)
        return self._scored_at

    async def _fault(self) -> str | None:
        """Scores the known pairs, and returns the reason if the judge is unfit.

        Raises:
            JudgeUnavailable, _Busy: The known pairs get no answer now.
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
        """Returns the verdicts of the judge on the known pairs.

        Raises:
            JudgeUnavailable, _Busy: The known pairs get no answer now.
            JudgeBroken: A picture gets no verdict.
        """
        texts = await self._probe()

        # Each picture is the match of one query and the mismatch of the other.
        pictures = []
        for query, match, other in (
            (ASKED_RED, KNOWN_RED, KNOWN_BLUE),
            (ASKED_BLUE, KNOWN_BLUE, KNOWN_RED),
        ):
            answers = await self._known(query, match, other)
            for answer in answers:
                if isinstance(answer, PairError):
                    raise JudgeBroken(
                        f"a picture gets no verdict ({answer.code}: {answer.message}). {DO_NOT_FIT}"
                    )
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
        """Returns the answers to known pairs. An unfit judge answers too.

        Raises:
            JudgeUnavailable: No answer came in time.
            _Busy: No answer came in time, but other requests made progress.
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
