"""A reranker's lessons: training rows → questions that end where the answer begins, and the one token that answers.

Pairwise: the judge's own prompt; Yes for the positive, No for a negative. Listwise: the positive among some negatives,
at a place drawn evenly; the answer is its number. Of an answer only the token that tells is supervised: `Ans: (` is
given, so constant words make no part of the loss.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from trainer.backbone import Backbone
from trainer.examples import Example
from trainer.loop import Terms
from trainer.losses import weighted_mean
from trainer.training_settings import RerankerLossSettings
from unijudge.encoding import Stream
from unijudge.errors import DataError, ModelError
from unijudge.prompt import Prompt, list_answer, list_parts


@dataclass(frozen=True)
class Question:
    """What the model is given, and what it should say next."""

    stream: Stream
    answer_id: int
    weight: float = 1.0
    """Of its row."""


@dataclass(frozen=True)
class Lesson:
    """The questions of one batch."""

    pairs: list[Question]
    lists: list[Question]
    """As many as rows; none if the listwise loss has no weight."""


class Lessons:
    """Writes questions in one model's tokens."""

    def __init__(self, backbone: Backbone, prompt: Prompt, settings: RerankerLossSettings, seed: int):
        """Proves the answers.

        Raises:
            ModelError: Yes, No or a number is not one token where the answer stands.
        """
        self._backbone = backbone
        self._encoder = backbone.inputs.encoder
        self._prompt = prompt
        self._settings = settings
        self._seed = seed
        self._longest = backbone.max_tokens
        self._labels = {True: self._encoder.label_id(prompt.yes), False: self._encoder.label_id(prompt.no)}
        if self._labels[True] == self._labels[False]:
            raise ModelError(
                f"labels {prompt.yes!r} and {prompt.no!r} are the same token; set prompt.yes and prompt.no"
            )
        self._before_number, self._numbers = self._number_ids(settings.list_size_max)

    def of(self, examples: Sequence[Example], step: int) -> Lesson:
        """The questions of some rows: others in each step, the same ones when a step is done again."""
        name = "".join(key.hex() for example in examples for key in example.candidate_keys)
        dice = random.Random(f"{self._seed} {step} {name}")  # noqa: S311  reproducible, not secret
        pairs = [question for example in examples for question in self._pairwise(example, dice)]
        lists = [self._listwise(example, dice) for example in examples] if self._settings.listwise else []
        return Lesson(pairs, lists)

    def _pairwise(self, example: Example, dice: random.Random) -> list[Question]:
        negative = example.candidates[dice.choice(self._hardest(example))]
        answers = [(example.candidates[0], self._labels[True]), (negative, self._labels[False])]
        streams = [self._encoder.stream(self._prompt.parts(example.query, candidate)) for candidate, _ in answers]
        return [self._checked(example, stream, label) for stream, (_, label) in zip(streams, answers, strict=True)]

    def _listwise(self, example: Example, dice: random.Random) -> Question:
        """A list that is too long for the model is shortened by whole candidates, down to two."""
        size = dice.randint(self._settings.list_size_min, self._settings.list_size_max)
        places = dice.sample(_negatives(example), min(size - 1, len(_negatives(example))))
        while len(places) > 1 and self._backbone.inputs.length(self._list(example, [0, *places])) > self._longest:
            places.pop()
        gold = dice.randint(0, len(places))
        stream = self._list(example, [*places[:gold], 0, *places[gold:]])
        return self._checked(example, stream, self._numbers[gold])

    def _list(self, example: Example, places: Sequence[int]) -> Stream:
        parts = list_parts(example.query, [example.candidates[place] for place in places])
        return [*self._encoder.stream(parts), *self._before_number]

    def _hardest(self, example: Example) -> list[int]:
        """The places of those negatives that one is drawn from for a pair."""
        scores = example.teacher
        if scores is None:
            return _negatives(example)
        return sorted(_negatives(example), key=lambda place: -scores[place])[: self._settings.hardest]

    def _checked(self, example: Example, stream: Stream, answer_id: int) -> Question:
        try:
            self._backbone.check_length(stream)
        except DataError as error:
            shown = (example.query.text or "an image")[:60]
            raise DataError(f"the row of query {shown!r}: {error}") from error
        return Question(stream, answer_id, example.weight)

    def _number_ids(self, largest: int) -> tuple[list[int], list[int]]:
        """What stands before the number of a listwise answer, and the one token of each number from 1."""
        answers = [self._encoder.answer_ids(list_answer(number)) for number in range(1, largest + 1)]
        first, last = answers[0], answers[-1]
        start = next((place for place, ids in enumerate(zip(first, last, strict=False)) if ids[0] != ids[1]), 0)
        if any(ids[:start] + ids[start + 1 :] != first[:start] + first[start + 1 :] for ids in answers):
            raise ModelError(
                f"{self._backbone.inputs.name}: the numbers 1 to {largest} are not one token each in "
                f"{list_answer(1)!r}; set loss.listwise = 0"
            )
        return first[:start], [ids[start] for ids in answers]


def _negatives(example: Example) -> list[int]:
    """The places of the distinct negatives: an under-filled row repeats some."""
    places = {key: place for place, key in reversed(list(enumerate(example.candidate_keys)))}
    return sorted(place for place in places.values() if place)


def reranker_loss(backbone: Backbone, settings: RerankerLossSettings, lesson: Lesson) -> Terms:
    """The two mean cross-entropies, in nats, over the whole vocabulary, each times its weight; one without is left out.

    A question counts as much as its row weighs.

    Each term is a mean over its own questions, so neither list sizes nor batch sizes shift the balance.

    Source:
        UniME-V2 (arXiv 2510.13515), whose released code averages over all tokens of both instead.
    """
    terms = {"pairwise": (settings.pairwise, lesson.pairs), "listwise": (settings.listwise, lesson.lists)}
    return {name: weight * _cross_entropy(backbone, questions) for name, (weight, questions) in terms.items() if weight}


def _cross_entropy(backbone: Backbone, questions: Sequence[Question]) -> Tensor:
    logits = backbone.next_token_logits([question.stream for question in questions])
    answers = torch.tensor([question.answer_id for question in questions], device=logits.device)
    weights = torch.tensor([question.weight for question in questions], device=logits.device)
    return weighted_mean(F.cross_entropy(logits, answers, reduction="none"), weights)
