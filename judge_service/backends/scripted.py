"""A judge without a model, for load and fault tests: the score is a hash of the pair.

The scores must never become training data. The identity of this judge is `scripted`, so they can always be recognised.
"""

import asyncio
import hashlib
import math
from collections.abc import Sequence

from unijudge.content import Content
from unijudge.errors import BadImage, JudgeRefused
from unijudge.images.decoding import open_image
from unijudge.judging.prompt import Prompt, content_parts
from unijudge.judging.verdicts import EMPTY, JudgeIdentity, ListVerdict, PairError, Verdict


class ScriptedJudge:
    """Computes scores from a hash. Checks images in the same way as the real judges."""

    def __init__(self, prompt: Prompt, *, delay_s: float = 0.0):
        self._delay_s = delay_s
        self._identity = JudgeIdentity(
            model="scripted",
            weights="none",
            prompt_fingerprint=prompt.fingerprint,
            yes=prompt.yes,
            no=prompt.no,
            yes_id=1,
            no_id=0,
            order=prompt.order,
            min_pixels=1,
            max_pixels=1,
            dtype="none",
            head_dtype="none",
            backend="scripted",
            backend_version="1",
        )

    @property
    def identity(self) -> JudgeIdentity:
        """The identity of the judge."""
        return self._identity

    async def judge(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[Verdict | PairError]:
        """Returns one answer for each candidate, in order. The same pair always gets the same answer."""
        await self._begin(query)
        return [self._answer(query, candidate) for candidate in candidates]

    async def choose(
        self, query: Content, candidates: Sequence[Content]
    ) -> ListVerdict | PairError:
        """Returns the best of the candidates. P(number) is proportional to the odds of the pair."""
        await self._begin(query)
        answers = [self._answer(query, candidate) for candidate in candidates]
        for number, answer in enumerate(answers, start=1):
            if isinstance(answer, PairError):
                return answer.model_copy(
                    update={"message": f"candidate {number}: {answer.message}"}
                )

        # Normalised, the odds of all candidates sum to 1.
        log_odds = [answer.log_odds for answer in answers if isinstance(answer, Verdict)]
        log_total = math.log(math.fsum(map(math.exp, log_odds)))
        return ListVerdict.of([odds - log_total for odds in log_odds], argmax_is_number=True)

    async def _begin(self, query: Content) -> None:
        await asyncio.sleep(self._delay_s)
        if fault := _fault_of(query):
            raise JudgeRefused(f"query: {fault.message}")

    def _answer(self, query: Content, candidate: Content) -> Verdict | PairError:
        if fault := _fault_of(candidate):
            return fault
        digest = hashlib.sha256()
        for content in (query, candidate):
            digest.update(f"{content.text}\0".encode() + (content.image or b"") + b"\0")
        yes = (int.from_bytes(digest.digest()[:4]) + 1) / (2**32 + 2)
        return Verdict(
            yes_logprob=math.log(yes), no_logprob=math.log(1 - yes), argmax_is_label=True
        )


def _fault_of(content: Content) -> PairError | None:
    """Returns the error that the real judges give for a content. None if the content can be judged."""
    if not content_parts(content):
        return EMPTY
    try:
        if content.image is not None:
            open_image(content.image)
    except BadImage as error:
        return PairError(code="bad_image", message=str(error))
    return None
