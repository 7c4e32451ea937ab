"""Labelled pairs → a judge's answers. Every picture is read once before anything is asked, and again to be sent."""

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
"""Is told what is judged, the number of pairs that have an answer, and that of all pairs."""


@dataclass(frozen=True)
class BenchQuery:
    """A query and candidates that are judged against it."""

    query: Side
    candidates: Sequence[Side]


class Contents:
    """What the sides of pairs show. Holds no picture but those whose bytes stand in the rows themselves."""

    def __init__(self, pairs: Iterable[LabelledPair], images: Path):
        """Reads each picture once.

        Args:
            pairs: The pairs whose pictures will be asked for.
            images: The root of the pictures' names: a folder, which may hold zip archives, or a zip archive. Where no
                pair names a picture, it need not exist.

        Raises:
            DataError: There is no such root, or a picture is missing or cannot be read.
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
        """A side with the bytes of its picture.

        Raises:
            DataError: The picture could be read before, and cannot now.
        """
        if not isinstance(side.image, str):
            return Content(side.text, side.image)
        try:
            return Content(side.text, self._read(side.image))
        except Rejected as reason:
            raise DataError(
                f"{shown_name(side.image)} under {self._images}: {reason}. It was there when the command began: put it "
                "back, and run the command again"
            ) from reason

    def key(self, side: Side) -> bytes:
        """The 16-byte hash of a side's text and picture."""
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
                f"{pair.place}: picture {shown_name(name)} under {self._images}: {reason}. Put the file there, or set "
                "--images to the root of the paths"
            ) from reason

    def _read(self, name: str) -> bytes:
        if self._pictures is None:
            self._pictures = Pictures(self._images)
        return self._pictures.read(name)[0]


def questions_of(pairs: Iterable[LabelledPair]) -> list[BenchQuery]:
    """One question for each query, with its different candidates: a pair of several kinds or subsets is asked once."""
    candidates: dict[Side, dict[Side, None]] = {}
    for pair in pairs:
        candidates.setdefault(pair.query, {})[pair.candidate] = None
    return [BenchQuery(query, list(sides)) for query, sides in candidates.items()]


async def answers(
    judge: Judge, contents: Contents, questions: Sequence[BenchQuery], at_once: int, report: Callable[[int, int], None]
) -> list[list[PairAnswer]]:
    """The answers to some questions, in order: one for each candidate.

    Args:
        judge: Who is asked.
        contents: What the sides show.
        questions: What is asked.
        at_once: Questions that wait for the judge at most.
        report: Is told the number of pairs that have an answer, and that of all pairs.

    Raises:
        JudgeError: The judge cannot be used.
    """
    slots = asyncio.Semaphore(at_once)
    total = sum(len(question.candidates) for question in questions)
    done = 0

    async def ask(question: BenchQuery) -> list[PairAnswer]:
        nonlocal done
        async with slots:
            try:
                query, candidates = contents.of(question.query), [contents.of(side) for side in question.candidates]
                found: list[PairAnswer] = await judge.judge(query, candidates)
            except JudgeRefused as refusal:
                found = [PairError(code="refused", message=str(refusal))] * len(question.candidates)
        done += len(found)
        report(done, total)
        return found

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(question)) for question in questions]
    return [task.result() for task in tasks]
