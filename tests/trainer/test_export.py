"""Exported models, loaded by other libraries as their cards say: the numbers are ours."""

import asyncio
import re
import shlex

import numpy as np
import pytest
import torch

from judge_service.backends import open_judge
from judge_service.settings import ServiceSettings
from tests.families import MAKERS
from tests.trainer.exported import (
    CONTENTS,
    PAIRS,
    TALL,
    as_given,
    log_odds,
    run_card,
    trained_embedder,
    trained_reranker,
    vectors,
)
from trainer.export import export
from unijudge.corpus import Content
from unijudge.prompt import Prompt
from unijudge.settings import load_settings

pytest.importorskip("torchvision")  # transformers' processors want it
TOLERANCE = 1e-4
BOTH = Content("Find an image like this one.", TALL)
"""What the cards' code asks about."""


@pytest.fixture(scope="module")
def wide(model):
    """With room for pictures of several sizes."""
    return model.model_copy(update={"max_pixels": 112 * 112})


@pytest.fixture(scope="module")
def embedder(corpus, triples, wide, folder):
    return trained_embedder(corpus, triples, wide, folder / "embedder-run")


@pytest.fixture(scope="module")
def reranker(corpus, triples, wide, folder):
    return trained_reranker(corpus, triples, wide, folder / "reranker-run")


@pytest.fixture(scope="module", params=["merged", "adapter"])
def exported(request, embedder, folder):
    out = folder / f"embedder-{request.param}"
    export(embedder, out, request.param)
    return out


@pytest.fixture(scope="module", params=["merged", "adapter"])
def exported_reranker(request, reranker, folder):
    out = folder / f"reranker-{request.param}"
    export(reranker, out, request.param)
    return out


def gap(found, expected):
    return float(np.abs(np.asarray(found) - expected).max())


def test_an_adapter_moves_the_vectors(wide, embedder):
    """Or nothing below would show anything."""
    assert gap(vectors(wide, embedder / "adapter"), vectors(wide, None)) > 0.01


def test_sentence_transformers_gives_our_vectors(exported, embedder, wide, monkeypatch):
    """Alone by kind and mixed, and whichever of picture and text comes first."""
    ours = vectors(wide, embedder / "adapter")
    made = run_card(exported, "sentence-transformers", monkeypatch)
    model = made["model"]
    shown = [Content("a red fox"), Content(image=TALL), BOTH]
    assert gap(made["vectors"], vectors(wide, embedder / "adapter", shown)) < TOLERANCE
    for text_first in (False, True):
        given = [as_given(content, text_first=text_first) for content in CONTENTS]
        assert gap(model.encode(given), ours) < TOLERANCE
        for kind in ([0, 1], [2, 3, 4], [5, 6]):
            assert gap(model.encode([given[place] for place in kind]), ours[kind]) < TOLERANCE
    assert model.similarity_fn_name == "cosine"


def test_transformers_and_peft_give_our_vectors(exported, embedder, wide, monkeypatch):
    merged = exported.name.endswith("merged")
    made = run_card(exported, "transformers" if merged else "transformers and PEFT", monkeypatch)
    assert gap(made["vectors"], vectors(wide, embedder / "adapter", [BOTH])) < TOLERANCE
    assert made["processor"].tokenizer.padding_side == "left"


def test_an_export_is_a_model_of_ours_too(exported, embedder, wide):
    """Merged as `model.name`, an adapter as `model.adapter`."""
    ours = vectors(wide, embedder / "adapter")
    if exported.name.endswith("merged"):
        assert gap(vectors(wide.model_copy(update={"name": str(exported)}), None), ours) < TOLERANCE
    else:
        assert gap(vectors(wide, exported), ours) == 0


def test_a_cross_encoder_gives_our_log_odds(exported_reranker, reranker, wide, monkeypatch):
    ours = log_odds(wide, reranker / "adapter", Prompt())
    made = run_card(exported_reranker, "sentence-transformers", monkeypatch)
    shown = [(BOTH, Content("a red fox")), (BOTH, Content(image=TALL))]
    assert gap(made["scores"], log_odds(wide, reranker / "adapter", Prompt(), shown)) < TOLERANCE
    for text_first in (False, True):
        given = [tuple(as_given(side, text_first=text_first) for side in pair) for pair in PAIRS]
        assert gap(made["model"].predict(given), ours) < TOLERANCE
        chances = made["model"].predict(given, activation_fn=torch.nn.Sigmoid())
        assert gap(chances, 1 / (1 + np.exp(-ours))) < TOLERANCE


def test_transformers_and_peft_give_our_log_odds(exported_reranker, reranker, wide, monkeypatch):
    merged = exported_reranker.name.endswith("merged")
    made = run_card(exported_reranker, "transformers" if merged else "transformers and PEFT", monkeypatch)
    pair = [(Content(image=TALL), Content("a red fox"))]
    assert gap(made["log_odds"], log_odds(wide, reranker / "adapter", Prompt(), pair)) < TOLERANCE


def test_the_service_gives_our_log_odds(reranker, folder, wide):
    """By the settings of the card's command."""
    out = folder / "served"
    export(reranker, out)
    (command,) = re.findall(r"```bash\nunijudge judge serve \\\n(.+?)```", (out / "README.md").read_text(), re.DOTALL)
    words = shlex.split(command.replace("\\\n", " ").replace("=served", f"={out}"))
    settings = load_settings(ServiceSettings, None, [word for word in words if word != "--set"])
    transformers = settings.model.model_copy(update={"backend": "transformers", "device": "cpu"})
    judge = open_judge(settings.model_copy(update={"model": transformers}))
    answers = [asyncio.run(judge.judge(query, [candidate]))[0].log_odds for query, candidate in PAIRS]
    assert gap(answers, log_odds(wide, reranker / "adapter", Prompt())) < TOLERANCE


def test_a_question_that_names_the_candidate_first_is_no_cross_encoder(corpus, triples, wide, folder, monkeypatch):
    """sentence-transformers would swap the pictures of a pair; transformers need not."""
    prompt = Prompt(order="candidate_first", instruction="Is this \"it\"?\n")
    run = trained_reranker(corpus, triples, wide, folder / "candidate-first-run", prompt=prompt)
    out = folder / "candidate-first"
    export(run, out)
    assert not (out / "modules.json").exists()
    assert "CrossEncoder(" not in (out / "README.md").read_text()
    made = run_card(out, "transformers", monkeypatch)
    pair = [(Content(image=TALL), Content("a red fox"))]
    assert gap(made["log_odds"], log_odds(wide, run / "adapter", prompt, pair)) < TOLERANCE


@pytest.mark.parametrize("family", MAKERS)
def test_every_family_is_exported(family, corpus, triples, wide, tmp_path):
    """Pictures within the budget, where a processor knows none."""
    MAKERS[family](tmp_path / family)
    model = wide.model_copy(update={"name": str(tmp_path / family)})
    run = trained_embedder(corpus, triples, model, tmp_path / "run")
    export(run, tmp_path / "out")
    from sentence_transformers import SentenceTransformer

    contents = [one for one in CONTENTS if "qwen" in family or one.image != TALL]
    found = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode([as_given(one) for one in contents])
    assert gap(found, vectors(model, run / "adapter", contents)) < TOLERANCE
