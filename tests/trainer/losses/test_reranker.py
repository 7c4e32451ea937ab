"""The reranker on a tiny Qwen2.5-VL: the content of its prompts, its loss, a training that learns, and its merged
folder.
"""

import asyncio
import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.pictures import png
from trainer.data.dataset import Example
from trainer.losses.reranker import Lesson, Lessons, TrainingQuestion, reranker_loss
from trainer.losses.settings import RerankerLossSettings
from trainer.models.backbone import open_backbone
from trainer.models.settings import RerankerLoraSettings
from trainer.training.reranker import train_reranker
from trainer.training.settings import RerankerSettings
from unijudge.alike import Excluded, sign_of
from unijudge.content import Content
from unijudge.errors import DataError, ModelError
from unijudge.judging.prompt import LIST_INSTRUCTION, Prompt
from unijudge.judging.verdicts import Verdict
from unijudge.modeling.listwise import ListQuestion

COLORS = ["red", "green", "blue", "white", "black", "yellow"]


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def backbone(model):
    return open_backbone(model)


def example(number=0, *, teacher=(0.9, 0.1, 0.8, 0.3, 0.2, 0.1)):
    """A query with a picture and a text, and six candidates, each with a picture and a word."""
    return Example(
        query=Content(f"Which one is meant, number {number}?", png("orange")),
        candidates=[Content(f"It is {color}.", png(color)) for color in COLORS],
        candidate_keys=[bytes([number]) + color.encode() for color in COLORS],
        signs=[sign_of(color, None) for color in COLORS],
        teacher=None if teacher is None else list(teacher),
        excluded=Excluded(frozenset()),
    )


def decoded(backbone, stream):
    """The words of a prompt, with a name for each picture."""
    names = {png(color): color for color in [*COLORS, "orange"]}
    tokenizer = backbone.inputs._files[0]
    return "".join(
        f"[{names[entry]}]" if isinstance(entry, bytes) else tokenizer.decode([entry])
        for entry in stream
    )


def supervised_word(backbone, question):
    """Returns the only supervised word."""
    ((token, share),) = question.targets.items()
    assert share == 1
    return backbone.inputs._files[0].decode([token])


def test_every_word_and_picture_of_a_row_is_in_its_prompts(backbone):
    lesson = Lessons(backbone, Prompt(), RerankerLossSettings(list_size_min=6), seed=0).of(
        [example()], 1
    )
    positive, negative = (decoded(backbone, question.stream) for question in lesson.pairs)
    assert Prompt().instruction in positive
    assert "Query:[orange]Which one is meant, number 0?Candidate:[red]It is red.".replace(
        "[", "<|vision_start|>["
    ) == (
        positive[positive.index("Query:") : positive.rindex("<|im_end|>")].replace(
            "<|vision_end|>", ""
        )
    )
    assert "It is blue." in negative, "the negative with the highest judge score"
    assert "[blue]" in negative
    (listed,) = (decoded(backbone, question.stream) for question in lesson.lists)
    assert LIST_INSTRUCTION in listed
    assert "Which one is meant, number 0?" in listed
    for color in COLORS:
        assert f"[{color}]<|vision_end|>It is {color}." in listed
    body = listed[listed.index("Candidates:") :]
    places = [body.index(f"({number}) ") for number in range(1, 7)]
    assert places == sorted(places)
    assert listed.endswith("Ans: (")


def test_the_answers_are_the_right_tokens(backbone):
    lesson = Lessons(backbone, Prompt(), RerankerLossSettings(), seed=0).of(
        [example(number) for number in range(5)], 1
    )
    assert [supervised_word(backbone, question) for question in lesson.pairs] == ["Yes", "No"] * 5
    for question in lesson.lists:
        listed = decoded(backbone, question.stream)
        body = listed[listed.index("Candidates:") :]
        place = body.index("It is red.")
        number = sum(
            body.find(f"({n}) ") != -1 and body.find(f"({n}) ") < place for n in range(1, 7)
        )
        assert supervised_word(backbone, question) == str(number)


def test_the_positive_has_every_position_with_equal_probability(backbone):
    lessons = Lessons(
        backbone, Prompt(), RerankerLossSettings(list_size_min=4, list_size_max=4), seed=0
    )
    found = Counter(
        supervised_word(backbone, question)
        for start in range(0, 200, 20)
        for question in lessons.of(
            [example(number) for number in range(start, start + 20)], 1
        ).lists
    )
    assert set(found) == {"1", "2", "3", "4"}
    expected = 200 / 4
    # The limit is χ² with 3 degrees of freedom at p = .001.
    assert sum((count - expected) ** 2 / expected for count in found.values()) < 16.3


def test_a_pair_takes_one_of_the_hardest_negatives(backbone):
    def negatives(hardest, teacher):
        lessons = Lessons(
            backbone, Prompt(), RerankerLossSettings(hardest=hardest, listwise=0), seed=0
        )
        rows = [example(number, teacher=teacher) for number in range(30)]
        return {
            color
            for question in lessons.of(rows, 1).pairs[1::2]
            for color in COLORS
            if f"It is {color}." in decoded(backbone, question.stream)
        }

    scores = (0.9, 0.1, 0.8, 0.3, 0.2, 0.1)
    assert negatives(1, scores) == {"blue"}
    assert negatives(2, scores) == {"blue", "white"}
    assert negatives(1, None) == set(COLORS[1:]), "where nobody judged, any"


def test_the_same_rows_give_the_same_prompts(backbone):
    one, other = (Lessons(backbone, Prompt(), RerankerLossSettings(), seed=3) for _ in range(2))
    assert one.of([example(1), example(2)], 1) == other.of([example(1), example(2)], 1)
    assert one.of([example(1)], 1) != Lessons(
        backbone, Prompt(), RerankerLossSettings(), seed=4
    ).of([example(1)], 1)


def test_each_term_is_a_separate_mean(backbone):
    """The value is computed by hand from the model's logits. Twice as many lists do not have twice the weight."""
    settings = RerankerLossSettings(pairwise=2.0, listwise=0.5)
    lesson = Lessons(backbone, Prompt(), settings, seed=0).of([example(1), example(2)], 1)
    with torch.inference_mode():

        def mean(questions):
            logprobs = [
                backbone.next_token_logits([question.stream]).log_softmax(-1)[0]
                for question in questions
            ]
            losses = [
                -logprob_V[[*q.targets]].item()
                for logprob_V, q in zip(logprobs, questions, strict=True)
            ]
            return sum(losses) / len(losses)

        def terms(lesson):
            return {
                name: term.item()
                for name, term in reranker_loss(backbone, settings, lesson).items()
            }

        expected = {"pairwise": 2.0 * mean(lesson.pairs), "listwise": 0.5 * mean(lesson.lists)}
        assert terms(lesson) == pytest.approx(expected, abs=1e-5)
        assert terms(Lesson(lesson.pairs, lesson.lists * 2)) == pytest.approx(expected, abs=1e-5)
        light = [
            [replace(question, weight=0.25) for question in some]
            for some in (lesson.pairs, lesson.lists)
        ]
        assert terms(Lesson(*light)) == pytest.approx(
            {name: value / 4 for name, value in expected.items()}, abs=1e-5
        )
        alone = settings.model_copy(update={"listwise": 0.0})
        assert set(reranker_loss(backbone, alone, lesson)) == {"pairwise"}


def test_a_list_may_be_learned_only_among_its_numbers(backbone):
    """The value is computed by hand.

    The loss has a gradient for numbers, and no gradient for words that are no numbers.
    """
    settings = RerankerLossSettings(pairwise=0, listwise_over="numbers")
    lesson = Lessons(backbone, Prompt(), settings, seed=0).of([example(1), example(2)], 1)
    expected = []
    with torch.inference_mode():
        for question in lesson.lists:
            (logits,) = backbone.next_token_logits([question.stream])
            (target,) = question.targets
            assert target in question.among
            expected.append((logits[list(question.among)].logsumexp(-1) - logits[target]).item())
    found = reranker_loss(backbone, settings, lesson)["listwise"]
    assert found.item() == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert len({len(question.among) for question in lesson.lists} & {2, 3, 4, 5, 6}) >= 1
    over_all = RerankerLossSettings(pairwise=0)
    assert all(
        not question.among
        for question in Lessons(backbone, Prompt(), over_all, seed=0).of([example(1)], 1).lists
    )


@pytest.mark.parametrize(
    ("graded", "positive", "negative"),
    [(0, 1, 0), (1, 0.9, 0.8), (0.5, 0.95, 0.4)],
    ids=["hard", "judge", "between"],
)
def test_a_pairs_target_goes_towards_the_judges_score(backbone, graded, positive, negative):
    """The judge gives the positive 0.9 and its hardest negative 0.8.

    A row without a judge's score keeps hard labels.
    """
    settings = RerankerLossSettings(graded=graded, listwise=0)
    yes, no = (backbone.inputs.encoder.label_id(label) for label in ("Yes", "No"))

    def chances(row):
        pairs = Lessons(backbone, Prompt(), settings, seed=0).of([row], 1).pairs
        assert all(sum(question.targets.values()) == pytest.approx(1) for question in pairs)
        assert all(set(question.targets) <= {yes, no} for question in pairs)
        return [question.targets.get(yes, 0) for question in pairs]

    assert chances(example()) == pytest.approx([positive, negative])
    assert chances(example(teacher=None)) == [1, 0]
    drawn = replace(example(teacher=[0.9, *[1.0] * 5]), drawn=frozenset(range(1, 6)))
    assert chances(drawn) == pytest.approx([positive, 0]), (
        "1 is the paper's word for a random negative, not the judge's"
    )


def test_the_graded_loss_by_hand():
    """P = (0.6, 0.3, 0.1): −0.9 ln 0.6 − 0.1 ln 0.3 = 0.5801. The loss is smallest if P equals the target."""

    def loss(chances, targets):
        fixed = SimpleNamespace(next_token_logits=lambda _: torch.tensor([chances]).log())
        lesson = Lesson([TrainingQuestion([1], targets)], [])
        return reranker_loss(fixed, RerankerLossSettings(listwise=0), lesson)["pairwise"].item()

    assert loss([0.6, 0.3, 0.1], {0: 0.9, 1: 0.1}) == pytest.approx(0.5801, abs=1e-4)
    assert loss([0.6, 0.3, 0.1], {0: 1.0}) == pytest.approx(-math.log(0.6), abs=1e-6)
    least = loss([0.9, 0.1, 1e-9], {0: 0.9, 1: 0.1})
    assert least == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1), abs=1e-5)
    assert least < min(
        loss([0.89, 0.11, 1e-9], {0: 0.9, 1: 0.1}), loss([0.91, 0.09, 1e-9], {0: 0.9, 1: 0.1})
    )


def test_rows_that_cannot_be_learned_are_refused(backbone, monkeypatch):
    with pytest.raises(ValidationError, match="would learn nothing"):
        RerankerLossSettings(pairwise=0, listwise=0)
    with pytest.raises(
        ValidationError, match="list_size_min = 5 is greater than list_size_max = 3"
    ):
        RerankerLossSettings(list_size_min=5, list_size_max=3)
    with pytest.raises(ModelError, match="'zebra' is not one token"):
        Lessons(backbone, Prompt(yes="zebra"), RerankerLossSettings(), seed=0)
    with pytest.raises(ModelError, match="are the same token"):
        Lessons(backbone, Prompt(no="Yes"), RerankerLossSettings(), seed=0)
    monkeypatch.setattr(
        "unijudge.modeling.listwise.list_answer", lambda number: "Ans: " + "x" * number
    )
    with pytest.raises(ModelError, match=r"not one token each.*Set loss\.listwise = 0"):
        Lessons(backbone, Prompt(), RerankerLossSettings(), seed=0)
    assert (
        not Lessons(backbone, Prompt(), RerankerLossSettings(listwise=0), seed=0)
        .of([example()], 1)
        .lists
    )
    monkeypatch.undo()
    monkeypatch.setattr(backbone, "max_tokens", 50)
    with pytest.raises(
        DataError, match=r"'Which one is meant, number 0\?': an input of \d+ tokens is too long"
    ):
        Lessons(backbone, Prompt(), RerankerLossSettings(), seed=0).of([example()], 1)


def test_a_list_that_is_too_long_loses_candidates_and_keeps_its_positive(backbone, monkeypatch):
    settings = RerankerLossSettings(list_size_min=6)
    (whole,) = Lessons(backbone, Prompt(), settings, seed=0).of([example()], 1).lists
    monkeypatch.setattr(backbone, "max_tokens", backbone.inputs.length(whole.stream) - 1)
    for number in range(8):
        (shorter,) = Lessons(backbone, Prompt(), settings, seed=0).of([example(number)], 1).lists
        listed = decoded(backbone, shorter.stream)
        assert "It is red." in listed
        assert [f"It is {color}." in listed for color in COLORS].count(True) == 5


def test_a_list_is_measured_in_the_order_of_its_prompt(backbone, monkeypatch):
    """In this prompt, a positive that is not the first item costs 60 more tokens.

    Such lists are shortened, and no list is refused.
    """
    (first,) = (
        Lessons(backbone, Prompt(), RerankerLossSettings(list_size_min=6), seed=0)
        .of([example()], 1)
        .lists
    )
    real = backbone.inputs.length

    def length(stream):
        said = decoded(backbone, stream)
        return real(stream) + (0 if said.split("It is ")[1].startswith("red") else 60)

    monkeypatch.setattr(backbone.inputs, "length", length)
    monkeypatch.setattr(backbone, "max_tokens", real(first.stream) + 5)
    lessons = Lessons(backbone, Prompt(), RerankerLossSettings(list_size_min=6, pairwise=0), seed=0)
    found = [lessons.of([example()], step).lists[0] for step in range(12)]
    listed = [
        sum(f"It is {color}." in decoded(backbone, one.stream) for color in COLORS) for one in found
    ]
    assert max(length(one.stream) for one in found) <= backbone.max_tokens
    assert max(listed) == 6 > min(listed)


def test_a_repeated_negative_is_listed_once(backbone):
    row = example()
    places = [0, 1, 2, 1, 2, 1]
    fewer = replace(
        row,
        candidates=[row.candidates[place] for place in places],
        candidate_keys=[row.candidate_keys[place] for place in places],
    )
    (question,) = (
        Lessons(backbone, Prompt(), RerankerLossSettings(list_size_min=6), seed=0)
        .of([fewer], 1)
        .lists
    )
    listed = decoded(backbone, question.stream)
    assert [listed.count(f"It is {color}.") for color in COLORS] == [1, 1, 1, 0, 0, 0]


def test_a_reranker_learns_and_serves_what_it_learned(corpus, triples, model, tmp_path):
    """The merged model is an ordinary model: the judge's own backend gives the scores of model and adapter, within
    1e-4.
    """
    settings = RerankerSettings(
        corpus=corpus.folder, triples=triples, out=tmp_path / "run", model=model.model_dump(), num_negatives=7,
        max_steps=60,
        batch_size=4,
        learning_rate=3e-3, warmup_steps=3, save_steps=40, lora=RerankerLoraSettings(rank=8, alpha=16),
        loss=RerankerLossSettings(hardest=7, list_size_max=3),
    )  # fmt: skip
    losses = []
    merged = train_reranker(settings, lambda _, loss: losses.append(loss))
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 2
    assert train_reranker(settings, quiet) == merged, "a finished run is not repeated"

    query = corpus.content(corpus.queries[0])
    candidates = [corpus.content(item) for item in corpus.items]
    served = ModelSettings(
        name=str(merged), backend="transformers", dtype="float32", device="cpu", max_tokens=1024,
        min_pixels=model.min_pixels, max_pixels=model.max_pixels,
    )  # fmt: skip
    judge = open_judge(ServiceSettings(model=served))
    answers = asyncio.run(judge.judge(query, candidates))
    assert all(isinstance(answer, Verdict) for answer in answers)

    adapted = open_backbone(model.model_copy(update={"adapter": merged.parent / "adapter"}))
    label = adapted.inputs.encoder.label_id
    with torch.inference_mode():
        streams = [
            adapted.inputs.encoder.stream(Prompt().parts(query, candidate))
            for candidate in candidates
        ]
        logits = adapted.next_token_logits(streams)
    expected = (logits[:, label("Yes")] - logits[:, label("No")]).tolist()
    assert [answer.log_odds for answer in answers] == pytest.approx(expected, abs=1e-4)
    assert np.argmax(expected) == 0, "the first query's own colour"

    lists = ListQuestion(adapted.inputs.encoder)
    with torch.inference_mode():
        (logits_V,) = adapted.next_token_logits([lists.stream(query, candidates[:3])])
    choice = asyncio.run(judge.choose(query, candidates[:3]))
    assert choice.logprobs == pytest.approx(
        logits_V.log_softmax(-1)[lists.number_ids[:3]].tolist(), abs=1e-4
    )
    assert choice.place is not None
    assert choice.mass > 0.5, "it has learned to answer with a number"


def test_a_question_has_the_weight_of_its_row(backbone):
    lesson = Lessons(backbone, Prompt(), RerankerLossSettings(), seed=0).of(
        [replace(example(), weight=0.5)], 1
    )
    assert {question.weight for question in (*lesson.pairs, *lesson.lists)} == {0.5}


def test_a_row_has_different_questions_in_different_steps(backbone):
    """This also holds for a row alone in its batch. The model could memorise a position that never changes."""
    lessons = Lessons(backbone, Prompt(), RerankerLossSettings(), seed=0)
    assert (
        len(
            {
                supervised_word(backbone, lessons.of([example()], step).lists[0])
                for step in range(30)
            }
        )
        >= 4
    )
    assert lessons.of([example()], 7) == lessons.of([example()], 7)
