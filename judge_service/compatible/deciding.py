"""The common part of the decision APIs: the questions about an input are judged in one turn of the queue.

The input is the query. A statement is a candidate. A question with options is listwise: the instructions follow the
input, and the options are the candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request

from judge_service.compatible.asking import Asker
from judge_service.compatible.contents import joined
from judge_service.front.bodies import work_of
from unijudge.content import Content
from unijudge.errors import JudgeRefused
from unijudge.judging.verdicts import ListVerdict, PairError, Verdict

MOST_QUESTIONS = 400

Found = Verdict | ListVerdict | PairError


@dataclass(frozen=True)
class Asked:
    """A question about the input."""

    where: str
    """The place of the question in the request, for messages."""
    instructions: Content
    options: Sequence[Content] = ()
    """The options of a listwise question. Empty: the instructions are a statement."""


async def answers_about(
    asker: Asker, http: Request, query: Content, questions: Sequence[Asked]
) -> list[Found]:
    """Answers the questions about an input, in order.

    Raises:
        HttpError: There are too many questions, the input cannot be judged, or a question has more than one image.
    """
    asker.check_number(len(questions))

    # Statements share the input as their query, so they are judged together.
    statements = {
        place: question.instructions
        for place, question in enumerate(questions)
        if not question.options
    }
    lists = {
        place: (joined(question.where, [query, question.instructions]), question.options)
        for place, question in enumerate(questions)
        if question.options
    }
    work = work_of(query, list(statements.values()))
    work += sum(work_of(both, options) for both, options in lists.values())

    found: dict[int, Found] = {}
    async with asker.questions.turn(http, work):
        if statements:
            verdicts = await asker.in_groups(query, list(statements.values()))
            found.update(zip(statements, verdicts, strict=True))
        for place, (both, options) in lists.items():
            found[place] = await _chosen(asker, both, options)
    return [found[place] for place in range(len(questions))]


async def _chosen(
    asker: Asker, query: Content, options: Sequence[Content]
) -> ListVerdict | PairError:
    try:
        return await asker.choose(query, options)
    except JudgeRefused as error:
        return PairError(code="refused", message=str(error))


def option_of(name: str, description: str | None) -> Content:
    """Returns an option as the judge sees it.

    Example:
        >>> option_of("cat", "an animal that purrs").text
        'cat: an animal that purrs'
    """
    return Content(text=f"{name}: {description}" if description else name)


def shares_of(found: ListVerdict) -> list[float]:
    """Returns the probability of each option, relative to the other options. The sum is 1."""
    return [math.exp(logprob) / found.mass for logprob in found.logprobs]


def confidence_of(found: ListVerdict) -> float:
    """Returns the probability of the best option, among all tokens that the model knows."""
    return min(1.0, max(shares_of(found)) * found.mass)


def expected_level(shares: Sequence[float]) -> float:
    """Returns the mean of the levels, which are numbered from 0.

    Example:
        >>> expected_level([0.25, 0.25, 0.5])
        1.25
    """
    return sum(level * share for level, share in enumerate(shares))
