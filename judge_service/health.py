"""Whether a judge works, known by what it scored: an engine can hang while its process answers every ping.

Alive: a real pair was scored in the last seconds, or one is scored now. Fit: Yes and No are what the model answers
with, and a pair that anybody would call a match scores above one that nobody would.
"""

import asyncio
import time
from collections.abc import Sequence

from judge_service.settings import HealthSettings
from unijudge.corpus import Content
from unijudge.errors import JudgeBroken, JudgeRefused, JudgeUnavailable
from unijudge.verdicts import Choice, Chooser, Judge, JudgeIdentity, PairError, Verdict

KNOWN_QUERY = Content(text="Find the sentence that says: seven apples lie on the table.")
KNOWN_YES = Content(text="Seven apples lie on the table.")
KNOWN_NO = Content(text="The train to the airport leaves at noon.")


class WatchedJudge:
    """Any judge, watched: every answer counts as a sign of life."""

    def __init__(self, judge: Judge, settings: HealthSettings):
        self._judge = judge
        self._settings = settings
        self._scored_at = self._canary_at = float("-inf")

    @property
    def identity(self) -> JudgeIdentity:
        """Who answers."""
        return self._judge.identity

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order."""
        answers = await self._judge.judge(query, candidates)
        if any(isinstance(answer, Verdict) for answer in answers):
            self._scored_at = time.monotonic()
        return answers

    async def choose(self, query: Content, candidates: Sequence[Content]) -> Choice | PairError:
        """Which of the candidates is the best, or why this list cannot be asked about.

        Raises:
            JudgeRefused: This judge answers pair by pair only.
        """
        if not isinstance(self._judge, Chooser):
            raise JudgeRefused(f"{self.identity} answers pair by pair only; ask /v1/score")
        result = await self._judge.choose(query, candidates)
        if isinstance(result, Choice):
            self._scored_at = time.monotonic()
        return result

    async def check_alive(self) -> None:
        """Returns if a real pair was scored lately, or can be scored now.

        Raises:
            JudgeUnavailable: It cannot, or not in time.
        """
        if time.monotonic() - self._scored_at > self._settings.fresh_s:
            await self._probe()

    async def check_ready(self) -> None:
        """As `check_alive`; and the judge is fit to judge.

        Raises:
            JudgeUnavailable: No pair can be scored.
            JudgeBroken: It answers with something else than Yes and No, or cannot tell a match from a mismatch.
        """
        await self.check_alive()
        due = self._settings.canary_every_s
        if not due or time.monotonic() - self._canary_at < due:
            return
        yes, no = await self._probe()
        if yes.log_odds <= no.log_odds:
            raise JudgeBroken(
                f"a pair that matches scores {yes.score:.3f}, one that does not {no.score:.3f}: this judge cannot tell "
                "them apart. Chat template, label words or model do not fit"
            )
        mass = (yes.mass + no.mass) / 2
        if mass < self._settings.min_mass:
            raise JudgeBroken(
                f"Yes and No together have a mean probability of {mass:.3g} on known pairs, less than health.min_mass "
                f"= {self._settings.min_mass:g}: the model is not answering the question. Chat template, label words "
                "or model do not fit"
            )
        self._canary_at = time.monotonic()

    async def _probe(self) -> tuple[Verdict, Verdict]:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answers = await self.judge(KNOWN_QUERY, [KNOWN_YES, KNOWN_NO])
        except TimeoutError as error:
            message = f"no pair was scored in {self._settings.timeout_s:g} s: the engine hangs, or is swamped"
            raise JudgeUnavailable(message) from error
        match answers:
            case [Verdict() as yes, Verdict() as no]:
                return yes, no
        raise JudgeUnavailable(f"a known pair got no verdict: {answers}")
