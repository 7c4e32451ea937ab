"""A reranker's lessons: training rows → questions that end where the answer begins, and the token that should follow.

Pairwise: the judge's own prompt; Yes for the positive, No for a negative, or each as far as the judge's score says so.
Listwise: the positive among some negatives, at a place drawn evenly; the answer is its number. Of an answer only the
token that tells is supervised: `Ans: (` is given, so constant words make no part of the loss.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from trainer.data.dataset import Example
from trainer.losses.distillation import weighted_mean
from trainer.losses.settings import RerankerLossSettings
from trainer.losses.terms import Terms
from trainer.models.backbone import Backbone
from unijudge.errors import DataError, ModelError
from unijudge.judging.prompt import Prompt
from unijudge.modeling.chat_encoder import Stream
from unijudge.modeling.listwise import ListQuestion


@dataclass(frozen=True)
class TrainingQuestion:
    """What the model is given, and what it should say next."""

    stream: Stream
    targets: dict[int, float]
    """The tokens that may come next, and how probable each should be; they sum to 1."""
    weight: float = 1.0
    """Of its row."""
    among: tuple[int, ...] = ()
    """The tokens that share the probability; none: the whole vocabulary."""


@dataclass(frozen=True)
class Lesson:
    """The questions of one batch."""

    pairs: list[TrainingQuestion]
    lists: list[TrainingQuestion]
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
        self._lists = self._list_question() if settings.listwise else None

    def of(self, examples: Sequence[Example], step: int) -> Lesson:
        """The questions of some rows: others in each step, the same ones when a step is done again."""
        name = "".join(key.hex() for example in examples for key in example.candidate_keys)
        dice = random.Random(f"{self._seed} {step} {name}")  # noqa: S311  reproducible, not secret
        pairs = [question for example in examples for question in self._pairwise(example, dice)]
        lists = [self._listwise(self._lists, example, dice) for example in examples] if self._lists else []
        return Lesson(pairs, lists)

    def longest(self, example: Example) -> int:
        """The tokens of the longest question that a row cannot do without: any pair, and any list of two."""
        query, candidates = example.query, example.candidates
        pairs = [self._prompt.parts(query, candidates[place]) for place in (0, *self._hardest(example))]
        asked = [self._encoder.stream(parts) for parts in pairs]
        if self._lists is not None:
            for place in _negatives(example):
                both = candidates[0], candidates[place]
                asked += [self._lists.stream(query, listed) for listed in (both, both[::-1])]
        return max(map(self._backbone.inputs.length, asked))

    def _pairwise(self, example: Example, dice: random.Random) -> list[TrainingQuestion]:
        places = (0, dice.choice(self._hardest(example)))
        prompts = [self._prompt.parts(example.query, example.candidates[place]) for place in places]
        return [
            self._checked(example, self._encoder.stream(parts), self._labelled(self._chance(example, place)))
            for parts, place in zip(prompts, places, strict=True)
        ]

    def _chance(self, example: Example, place: int) -> float:
        """Of Yes, as it should be: 1 or 0, drawn as far towards the judge's score, if any, as `graded` says."""
        hard = float(place == 0)
        score = hard if example.teacher is None or place in example.drawn else example.teacher[place]
        return hard + self._settings.graded * (score - hard)

    def _labelled(self, chance: float) -> dict[int, float]:
        shares = {self._labels[True]: chance, self._labels[False]: 1 - chance}
        return {label: share for label, share in shares.items() if share}

    def _listwise(self, lists: ListQuestion, example: Example, dice: random.Random) -> TrainingQuestion:
        """A list that is too long for the model is shortened by whole candidates, down to two."""
        size = dice.randint(self._settings.list_size_min, self._settings.list_size_max)
        places = dice.sample(_negatives(example), min(size - 1, len(_negatives(example))))

        share = dice.random()  # of the list, before the positive: its place is drawn evenly whatever the list's length

        def asked() -> tuple[int, Stream]:
            gold = int(share * (len(places) + 1))
            listed = [*places[:gold], 0, *places[gold:]]
            return gold, lists.stream(example.query, [example.candidates[place] for place in listed])

        gold, stream = asked()
        while len(places) > 1 and self._backbone.inputs.length(stream) > self._longest:
            places.pop()
            gold, stream = asked()
        numbers = tuple(lists.number_ids[: len(places) + 1])
        among = numbers if self._settings.listwise_over == "numbers" else ()
        return self._checked(example, stream, {numbers[gold]: 1.0}, among)

    def _hardest(self, example: Example) -> list[int]:
        """The places of those negatives that one is drawn from for a pair."""
        scores = example.teacher
        if scores is None:
            return _negatives(example)
        return sorted(_negatives(example), key=lambda place: -scores[place])[: self._settings.hardest]

    def _checked(
        self, example: Example, stream: Stream, targets: dict[int, float], among: tuple[int, ...] = ()
    ) -> TrainingQuestion:
        try:
            self._backbone.check_length(stream)
        except DataError as error:
            shown = (example.query.text or "an image")[:60]
            raise DataError(f"the row of query {shown!r}: {error}") from error
        return TrainingQuestion(stream, targets, example.weight, among)

    def _list_question(self) -> ListQuestion:
        try:
            return ListQuestion(self._encoder)
        except ModelError as error:
            raise ModelError(f"{self._backbone.inputs.name}: {error}; set loss.listwise = 0") from error


def _negatives(example: Example) -> list[int]:
    """The places of the distinct negatives: an under-filled row repeats some."""
    places = {key: place for place, key in reversed(list(enumerate(example.candidate_keys)))}
    return sorted(place for place in places.values() if place)


def reranker_loss(backbone: Backbone, settings: RerankerLossSettings, lesson: Lesson) -> Terms:
    """The two mean cross-entropies, in nats, each times its weight; one without is left out.

    Of a question with targets t(v):  −Σ t(v) ln P(v).  P is over the whole vocabulary, so graded targets also hold the
    model to Yes and No: the least is the targets' entropy, where P(Yes) = t(Yes) and P(No) = t(No). A list's P may be
    over its numbers alone (`listwise_over`).

    A question counts as much as its row weighs. Each term is a mean over its own questions, so neither list sizes nor
    batch sizes shift the balance.

    Source:
        UniME-V2 (arXiv 2510.13515), whose released code averages over all tokens of both instead.
    """
    terms = {"pairwise": (settings.pairwise, lesson.pairs), "listwise": (settings.listwise, lesson.lists)}
    return {name: weight * _cross_entropy(backbone, questions) for name, (weight, questions) in terms.items() if weight}


def _cross_entropy(backbone: Backbone, questions: Sequence[TrainingQuestion]) -> Tensor:
    logits_QV = backbone.next_token_logits([question.stream for question in questions])
    targets_QV = torch.zeros_like(logits_QV)
    for target_V, question in zip(targets_QV, questions, strict=True):
        for token, share in question.targets.items():
            target_V[token] = share
    is_out_QV = torch.zeros_like(logits_QV, dtype=torch.bool)
    for is_out_V, question in zip(is_out_QV, questions, strict=True):
        if question.among:
            is_out_V[:] = True
            is_out_V[list(question.among)] = False
    # Not −∞: a target of 0 times −∞ is no number.
    logits_QV = logits_QV.masked_fill(is_out_QV, torch.finfo(logits_QV.dtype).min)
    weights_Q = torch.tensor([question.weight for question in questions], device=logits_QV.device)
    return weighted_mean(F.cross_entropy(logits_QV, targets_QV, reduction="none"), weights_Q)
