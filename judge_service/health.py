"""Whether a judge works, known by what it scored: an engine can hang while its process answers every ping.

Alive: a real pair was scored in the last seconds, or one is scored now. Fit: Yes and No are what the model answers
with, a pair that anybody would call a match scores above one that nobody would, and a picture gets a verdict. A judge
that was found unfit scores nothing until it is fit again; it tries known pairs by itself.
"""

import asyncio
import io
import logging
import time
from collections.abc import Sequence

from PIL import Image

from judge_service.settings import HealthSettings
from unijudge.corpus import Content
from unijudge.errors import JudgeBroken, JudgeRefused, JudgeUnavailable
from unijudge.verdicts import Choice, Chooser, Judge, JudgeIdentity, PairError, Verdict

KNOWN_QUERY = Content(text="Find the sentence that says: seven apples lie on the table.")
KNOWN_YES = Content(text="Seven apples lie on the table.")
KNOWN_NO = Content(text="The train to the airport leaves at noon.")


logger = logging.getLogger(__name__)


def _picture() -> bytes:
    """One that is not square: colours that flow into each other."""
    tile = Image.frombytes("RGB", (2, 2), bytes(range(0, 240, 20)))
    out = io.BytesIO()
    tile.resize((110, 100), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


DO_NOT_FIT = "Chat template, label words, image processor or model do not fit"
KNOWN_PICTURE = Content(image=_picture())
"""What it shows does not matter: it must get a verdict."""


class WatchedJudge:
    """Any judge, watched: every answer counts as a sign of life."""

    def __init__(self, judge: Judge, settings: HealthSettings):
        self._judge = judge
        self._settings = settings
        self._scored_at = self._canary_at = float("-inf")
        self._unfit: str | None = None  # why, since the last look

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
        return await self._answers(query, candidates)

    async def _answers(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        answers = await self._judge.judge(query, candidates)
        if any(isinstance(answer, Verdict) for answer in answers):
            self._scored_at = time.monotonic()
        return answers

    async def choose(self, query: Content, candidates: Sequence[Content]) -> Choice | PairError:
        """Which of the candidates is the best, or why this list cannot be asked about.

        Raises:
            JudgeRefused: This judge answers pair by pair only.
            JudgeUnavailable: It was found unfit.
        """
        self.check_fit()
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
            JudgeBroken: It answers with something else than Yes and No, cannot tell a match from a mismatch, or cannot
                judge a picture.
        """
        await self.check_alive()
        due = self._settings.canary_every_s
        if due and time.monotonic() - self._canary_at >= due:
            self._unfit = await self._fault()
            if self._unfit is None:
                self._canary_at = time.monotonic()
            else:  # looked at again with the next question
                self._canary_at = float("-inf")
        if self._unfit is not None:
            raise JudgeBroken(self._unfit)

    async def watch(self) -> None:
        """Looks whether the judge is fit, as often as the settings say, until it is cancelled."""
        while self._settings.canary_every_s:
            await asyncio.sleep(self._settings.canary_every_s if self._unfit is None else self._settings.fresh_s)
            try:
                await self.check_ready()
            except JudgeBroken as error:
                logger.warning("this judge scores nothing until it is fit again: %s", error)
            except JudgeUnavailable as error:  # busy or dead: that is not unfit, and every caller is told
                logger.warning("known pairs could not be tried: %s", error)

    def check_fit(self) -> None:
        """Returns unless the judge was found unfit when known pairs were last tried.

        Raises:
            JudgeUnavailable: It was; another replica may be fit.
        """
        if self._unfit is not None:
            raise JudgeUnavailable(f"this judge was found unfit, and scores nothing: {self._unfit}")

    async def _fault(self) -> str | None:
        """Why this judge is not fit to judge, by known pairs; None where it is.

        Raises:
            JudgeUnavailable: They get no answer now.
        """
        try:
            yes, no = await self._probe()
            (shown,) = await self._known(KNOWN_PICTURE)
        except JudgeUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  a model or an engine may fail in any way
            return f"known pairs cannot be judged ({type(error).__name__}: {error}). {DO_NOT_FIT}"
        if yes.log_odds <= no.log_odds:
            return (
                f"a pair that matches scores {yes.score:.3f}, one that does not {no.score:.3f}: this judge cannot tell "
                f"them apart. {DO_NOT_FIT}"
            )
        mass = (yes.mass + no.mass) / 2
        if mass < self._settings.min_mass:
            return (
                f"Yes and No together have a mean probability of {mass:.3g} on known pairs, less than health.min_mass "
                f"= {self._settings.min_mass:g}: the model is not answering the question. {DO_NOT_FIT}"
            )
        if isinstance(shown, PairError):
            return f"a picture gets no verdict ({shown.code}: {shown.message}). {DO_NOT_FIT}"
        return None

    async def _probe(self) -> tuple[Verdict, Verdict]:
        match await self._known(KNOWN_YES, KNOWN_NO):
            case [Verdict() as yes, Verdict() as no]:
                return yes, no
            case answers:
                raise JudgeUnavailable(f"a known pair got no verdict: {answers}")

    async def _known(self, *candidates: Content) -> list[Verdict | PairError]:
        """The answers to known pairs, asked whether or not the judge is fit.

        Raises:
            JudgeUnavailable: There are none in time.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._answers(KNOWN_QUERY, candidates)
        except TimeoutError as error:
            message = f"no pair was scored in {self._settings.timeout_s:g} s: the engine hangs, or is swamped"
            raise JudgeUnavailable(message) from error
