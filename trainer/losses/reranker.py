"""The reranker's training questions and their loss. A question ends where its answer begins; its target is a token.

A pairwise question is the judge's own prompt. Its target is Yes for the positive and No for a negative, or a mixture of
both by the judge's score. A listwise question shows the positive among some negatives, at a position drawn uniformly.
Its target is the number of the positive. Only the deciding token of an answer is supervised: the question already
includes `Ans: (`, so constant words are not part of the loss.
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
    """An input of the model, and the token that should come next."""

    stream: Stream
    targets: dict[int, float]
    """The tokens that may come next, each with its target probability. The probabilities sum to 1."""
    weight: float = 1.0
    """The weight of the question's row."""
    among: tuple[int, ...] = ()
    """The tokens over which the probability is computed. Empty: the whole vocabulary."""


@dataclass(frozen=True)
class Lesson:
    """The questions of one batch."""

    pairs: list[TrainingQuestion]
    lists: list[TrainingQuestion]
    """One listwise question per row. Empty if the weight of the listwise loss is 0."""


class Lessons:
    """Turns training rows into questions, in the tokens of one model."""

    def __init__(
        self, backbone: Backbone, prompt: Prompt, settings: RerankerLossSettings, seed: int
    ):
        """Checks that each possible answer is a single token.

        Raises:
            ModelError: Yes, No or a number is not a single token in the position of the answer.
        """
        self._backbone = backbone
        self._encoder = backbone.inputs.encoder
        self._prompt = prompt
        self._settings = settings
        self._seed = seed
        self._longest = backbone.max_tokens
        self._labels = {
            True: self._encoder.label_id(prompt.yes),
            False: self._encoder.label_id(prompt.no),
        }
        if self._labels[True] == self._labels[False]:
            raise ModelError(
                f"the labels {prompt.yes!r} and {prompt.no!r} are the same token. Set other prompt.yes and prompt.no"
            )
        self._lists = self._list_question() if settings.listwise else None

    def of(self, examples: Sequence[Example], step: int) -> Lesson:
        """Returns the questions of some rows. Random choices differ between steps; a repeated step repeats them."""
        name = "".join(key.hex() for example in examples for key in example.candidate_keys)
        dice = random.Random(f"{self._seed} {step} {name}")  # noqa: S311  reproducible, not secret
        pairs = [question for example in examples for question in self._pairwise(example, dice)]
        lists = []
        if self._lists:
            lists = [self._listwise(self._lists, example, dice) for example in examples]
        return Lesson(pairs, lists)

    def longest(self, example: Example) -> int:
        """Returns the number of tokens of the longest question that a row needs: any pair, and any list of two."""
        query, candidates = example.query, example.candidates
        pairs = [
            self._prompt.parts(query, candidates[index]) for index in (0, *self._hardest(example))
        ]
        streams = [self._encoder.stream(parts) for parts in pairs]
        if self._lists is not None:
            for index in _negatives(example):
                both = candidates[0], candidates[index]
                streams += [self._lists.stream(query, listed) for listed in (both, both[::-1])]
        return max(map(self._backbone.inputs.length, streams))

    def _pairwise(self, example: Example, dice: random.Random) -> list[TrainingQuestion]:
        indices = (0, dice.choice(self._hardest(example)))
        prompts = [
            self._prompt.parts(example.query, example.candidates[index]) for index in indices
        ]
        return [
            self._checked(
                example, self._encoder.stream(parts), self._labelled(self._chance(example, index))
            )
            for parts, index in zip(prompts, indices, strict=True)
        ]

    def _chance(self, example: Example, index: int) -> float:
        """Returns the target probability of Yes: the label 1 or 0, interpolated towards the judge's score by `graded`.

        The target is the label alone if the row has no judge scores or if the negative was drawn at random.
        """
        hard = float(index == 0)
        score = (
            hard if example.teacher is None or index in example.drawn else example.teacher[index]
        )
        return hard + self._settings.graded * (score - hard)

    def _labelled(self, probability: float) -> dict[int, float]:
        targets = {self._labels[True]: probability, self._labels[False]: 1 - probability}
        return {label: target for label, target in targets.items() if target}

    def _listwise(
        self, lists: ListQuestion, example: Example, dice: random.Random
    ) -> TrainingQuestion:
        """Returns a listwise question. A list that is too long for the model loses candidates until two are left."""
        size = dice.randint(self._settings.list_size_min, self._settings.list_size_max)
        negatives = dice.sample(_negatives(example), min(size - 1, len(_negatives(example))))

        # The share of the list before the positive. It makes the position uniform for every length of the list.
        share = dice.random()

        def question() -> tuple[int, Stream]:
            gold = int(share * (len(negatives) + 1))
            listed = [*negatives[:gold], 0, *negatives[gold:]]
            return gold, lists.stream(
                example.query, [example.candidates[index] for index in listed]
            )

        gold, stream = question()
        while len(negatives) > 1 and self._backbone.inputs.length(stream) > self._longest:
            negatives.pop()
            gold, stream = question()
        numbers = tuple(lists.number_ids[: len(negatives) + 1])
        among = numbers if self._settings.listwise_over == "numbers" else ()
        return self._checked(example, stream, {numbers[gold]: 1.0}, among)

    def _hardest(self, example: Example) -> list[int]:
        """Returns the indices of the negatives from which a pair's negative is drawn."""
        scores = example.teacher
        if scores is None:
            return _negatives(example)
        return sorted(_negatives(example), key=lambda index: -scores[index])[
            : self._settings.hardest
        ]

    def _checked(
        self,
        example: Example,
        stream: Stream,
        targets: dict[int, float],
        among: tuple[int, ...] = (),
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
            raise ModelError(
                f"{self._backbone.inputs.name}: {error}. Set loss.listwise = 0"
            ) from error


def _negatives(example: Example) -> list[int]:
    """Returns the indices of the distinct negatives. A row with too few negatives repeats some of its negatives."""
    first = {key: index for index, key in reversed(list(enumerate(example.candidate_keys)))}
    return sorted(index for index in first.values() if index)


def reranker_loss(backbone: Backbone, settings: RerankerLossSettings, lesson: Lesson) -> Terms:
    """Returns the two mean cross-entropies, in nats, each times its weight. A term with weight 0 is left out.

    The cross-entropy of a question with targets t(v) is  −Σ t(v) ln P(v).  P is over the whole vocabulary, so graded
    targets also teach the model to answer only Yes or No: the minimum is the entropy of the targets, reached at
    P(Yes) = t(Yes) and P(No) = t(No). For a list, P can be over the numbers of the list alone (`listwise_over`).

    The weight of a question is the weight of its row. Each term is a mean over its own questions, so neither list sizes
    nor batch sizes shift the balance between the terms.

    Source:
        UniME-V2 (arXiv 2510.13515). The released code averages over all tokens of both kinds of questions instead.
    """
    terms = {
        "pairwise": (settings.pairwise, lesson.pairs),
        "listwise": (settings.listwise, lesson.lists),
    }
    return {
        name: weight * _cross_entropy(backbone, questions)
        for name, (weight, questions) in terms.items()
        if weight
    }


def _cross_entropy(backbone: Backbone, questions: Sequence[TrainingQuestion]) -> Tensor:
    logits_QV = backbone.next_token_logits([question.stream for question in questions])
    targets_QV = torch.zeros_like(logits_QV)
    for target_V, question in zip(targets_QV, questions, strict=True):
        for token, probability in question.targets.items():
            target_V[token] = probability
    is_out_QV = torch.zeros_like(logits_QV, dtype=torch.bool)
    for is_out_V, question in zip(is_out_QV, questions, strict=True):
        if question.among:
            is_out_V[:] = True
            is_out_V[list(question.among)] = False
    # The lowest finite number instead of −∞, since a target of 0 times −∞ is NaN.
    logits_QV = logits_QV.masked_fill(is_out_QV, torch.finfo(logits_QV.dtype).min)
    weights_Q = torch.tensor([question.weight for question in questions], device=logits_QV.device)
    return weighted_mean(F.cross_entropy(logits_QV, targets_QV, reduction="none"), weights_Q)
