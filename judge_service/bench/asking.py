"""Labelled pairs → a judge's answers.

Every picture is read twice: once before the first request, so that a missing picture stops the job early, and again for
its request.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from judge_service.bench.pairs import LabelledPair
from unijudge.content import Content, content_key
from unijudge.errors import DataError, JudgeRefused
from unijudge.foreign.cells import Rejected, Side, check_clean
from unijudge.foreign.pictures import Pictures, check_name
from unijudge.judging.verdicts import Judge, PairError, Verdict
from unijudge.shown import shown_name

PairAnswer = Verdict | PairError
BenchProgress = Callable[[str, int, int], None]
"""A function that gets the kind of work, the number of answered pairs and the number of all pairs."""


@dataclass(frozen=True)
class BenchQuery:
    """A query with the candidates that the judge compares with the query."""

    query: Side
    candidates: Sequence[Side]


class Contents:
    """The texts and pictures of pairs. Pictures from files are read when they are used, and not kept in memory."""

    def __init__(self, pairs: Iterable[LabelledPair], images: Path):
        """Reads each picture once.

        Args:
            pairs: The pairs whose pictures will be used.
            images: The root of the pictures' names: a folder, which may hold zip archives, or a zip archive. The root
                may be missing if no pair names a picture.

        Raises:
            DataError: The root does not exist, or a picture is missing or cannot be read.
        """
        self._images = images
        self._pictures: Pictures | None = None
        self._sha256: dict[str, str] = {}
        try:
            for pair in pairs:
                for side in (pair.query, pair.candidate):
                    if isinstance(side.image, str) and side.image not in self._sha256:
                        self._sha256[side.image] = self._checked(pair, side.image)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pictures is not None:
            self._pictures.__exit__()

    def of(self, side: Side) -> Content:
        """Returns a side with the bytes of its picture.

        Raises:
            DataError: The picture was readable at the start of the command, and is not readable now.
        """
        if not isinstance(side.image, str):
            return Content(side.text, side.image)
        try:
            return Content(side.text, self._read(side.image))
        except Rejected as reason:
            raise DataError(
                f"{shown_name(side.image)} under {self._images}: {reason}. The picture was readable when the command "
                "started. Restore the file, and run the command again"
            ) from reason

    def key(self, side: Side) -> bytes:
        """Returns the 16-byte hash of a side's text and picture."""
        match side.image:
            case bytes() as data:
                return content_key(side.text, hashlib.sha256(data).hexdigest())
            case name:
                return content_key(side.text, name and self._sha256[name])

    def _checked(self, pair: LabelledPair, name: str) -> str:
        try:
            check_clean("the picture", name)
            check_name(name)
            return hashlib.sha256(self._read(name)).hexdigest()
        except Rejected as reason:
            raise DataError(
                f"{pair.place}: picture {shown_name(name)} under {self._images}: {reason}. Add the file, or set "
                "--images to the root of the paths"
            ) from reason

    def _read(self, name: str) -> bytes:
        if self._pictures is None:
            self._pictures = Pictures(self._images)
        return self._pictures.read(name)[0]


def questions_of(pairs: Iterable[LabelledPair]) -> list[BenchQuery]:
    """Groups pairs by query, without duplicates: the judge scores a pair of several kinds or subsets once."""
    candidates: dict[Side, dict[Side, None]] = {}
    for pair in pairs:
        of_query = candidates.setdefault(pair.query, {})
        of_query[pair.candidate] = None
    return [BenchQuery(query, list(sides)) for query, sides in candidates.items()]


async def answers(
    judge: Judge,
    contents: Contents,
    questions: Sequence[BenchQuery],
    at_once: int,
    report: Callable[[int, int], None],
) -> list[list[PairAnswer]]:
    """Asks the judge, and returns the answers in the order of the questions: one answer for each candidate.

    Args:
        judge: The judge that answers.
        contents: The texts and pictures of the sides.
        questions: The queries with their candidates.
        at_once: The largest number of questions in flight.
        report: Gets the number of answered pairs and the number of all pairs.

    Raises:
        JudgeError: The judge cannot be used.
    """
    slots = asyncio.Semaphore(at_once)
    total = sum(len(question.candidates) for question in questions)
    done = 0

    async def ask(question: BenchQuery) -> list[PairAnswer]:
        nonlocal done
        async with slots:
            query = contents.of(question.query)
            candidates = [contents.of(side) for side in question.candidates]
            try:
                results: list[PairAnswer] = await judge.judge(query, candidates)
            except JudgeRefused as refusal:  # a bad query must not end the measurement
                results = [PairError(code="refused", message=str(refusal))] * len(candidates)
        done += len(results)
        report(done, total)
        return results

    # The task group ends all questions when one of them fails.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(question)) for question in questions]
    return [task.result() for task in tasks]
