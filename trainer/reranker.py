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
from trainer.settings import RerankerLossSettings
from unijudge.corpus import Content
from unijudge.encoding import Stream
from unijudge.errors import ModelError
from unijudge.prompt import Prompt, list_answer, list_parts


@dataclass(frozen=True)
class Question:
    """What the model is given, and what it should say next."""

    stream: Stream
    answer_id: int


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
        self._labels = {True: self._encoder.label_id(prompt.yes), False: self._encoder.label_id(prompt.no)}
        self._before_number, self._numbers = self._number_ids(settings.list_size_max)

    def of(self, examples: Sequence[Example]) -> Lesson:
        """The questions of some rows; drawn again in the same way for the same rows in the same order."""
        name = "".join(key.hex() for example in examples for key in example.candidate_keys)
        dice = random.Random(f"{self._seed} {name}")  # noqa: S311  reproducible, not secret
        pairs = [question for example in examples for question in self._pairwise(example, dice)]
        lists = [self._listwise(example, dice) for example in examples] if self._settings.listwise else []
        return Lesson(pairs, lists)

    def _pairwise(self, example: Example, dice: random.Random) -> list[Question]:
        positive, *negatives = example.candidates
        negative = negatives[dice.choice(self._hardest(example))]
        return [
            self._question(self._prompt.parts(example.query, candidate), [], self._labels[candidate is positive])
            for candidate in (positive, negative)
        ]

    def _listwise(self, example: Example, dice: random.Random) -> Question:
        size = dice.randint(self._settings.list_size_min, self._settings.list_size_max)
        positive, *negatives = example.candidates
        chosen = [negatives[place] for place in dice.sample(range(len(negatives)), min(size - 1, len(negatives)))]
        place = dice.randint(0, len(chosen))
        candidates: list[Content] = [*chosen[:place], positive, *chosen[place:]]
        return self._question(list_parts(example.query, candidates), self._before_number, self._numbers[place])

    def _hardest(self, example: Example) -> list[int]:
        """The places, among the negatives, of those that one is drawn from for a pair."""
        places = range(len(example.candidates) - 1)
        scores = example.teacher
        if scores is None:
            return list(places)
        return sorted(places, key=lambda place: -scores[1 + place])[: self._settings.hardest]

    def _question(self, parts: list[str | bytes], said: list[int], answer_id: int) -> Question:
        stream = [*self._encoder.stream(parts), *said]
        self._backbone.check_length(stream)
        return Question(stream, answer_id)

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


def reranker_loss(backbone: Backbone, settings: RerankerLossSettings, lesson: Lesson) -> Terms:
    """The two mean cross-entropies, in nats, over the whole vocabulary, each times its weight; one without is left out.

    Each term is a mean over its own questions, so neither list sizes nor batch sizes shift the balance.

    Source:
        UniME-V2 (arXiv 2510.13515), whose released code averages over all tokens of both instead.
    """
    terms = {"pairwise": (settings.pairwise, lesson.pairs), "listwise": (settings.listwise, lesson.lists)}
    return {name: weight * _cross_entropy(backbone, questions) for name, (weight, questions) in terms.items() if weight}


def _cross_entropy(backbone: Backbone, questions: Sequence[Question]) -> Tensor:
    logits = backbone.next_token_logits([question.stream for question in questions])
    return F.cross_entropy(logits, torch.tensor([q.answer_id for q in questions], device=logits.device))
