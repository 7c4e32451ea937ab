"""The card states only facts from the run and from the manifest of its rows."""

import itertools
import json
import re
from dataclasses import replace

import pytest

from tests.judge_service.compatible.compatible_app import posted
from tests.promised import check_command, check_keys, check_routes, commands
from trainer.export.model_card import RunFacts, card
from trainer.export.usage import ExportedModel
from trainer.losses.settings import LossSettings
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.formats.rankings import Evaluation
from unijudge.formats.triples import TripleManifest
from unijudge.judging.prompt import Prompt
from unijudge.provenance import Beginning, Provenance

AGREEING = "so that its similarities agree with a multimodal LLM's judgements"
PLAIN = "contrastively, from labels alone"
JUDGED = "on hard negatives judged by a multimodal LLM"
UNJUDGED = "on negatives that the selection `topk` chose without a judge"
PAPER = "(the method of UniME-V2, arXiv 2510.13515)"


def text_of(kind, identity, base="owner/base", selection=None, **settings):
    """The card of a run on rows that `mine select` wrote with the given settings. None: the rows were deleted."""
    rows = {"corpus": "c", "scores": "s", "rows": 1, "negatives_in_row": 1, "statistics": {}}
    places = {"corpus": "c", "triples": "t", "out": "o"}
    story = RunFacts(
        settings=(EmbedderSettings if kind == "embedder" else RerankerSettings)(
            **places, **settings
        ),
        begun=Beginning(settings={}, inputs={}, made=None),
        environment={},
        last={},
        triples=None if selection is None else TripleManifest(**rows, selection=selection),
        judges=[identity],
        evaluations=[],
    )
    return card(artefact(kind, base), story, tiled=False, license=None)


def artefact(kind, base):
    return ExportedModel(
        name="made", kind=kind, form="merged", base=base, revision=None, dtype="float32", min_pixels=1, max_pixels=2,
        max_tokens=3, processor={}, prompt=Prompt(), labels=(0, 1), pairs=True, bare=None, edge=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "selection", "how", "judged"),
    [
        ("symmetric_kl", {"preset": "unime-v2"}, f" {AGREEING}, {JUDGED} {PAPER}.", True),
        ("symmetric_kl", None, f" {AGREEING}.", True),
        ("kl", {"preset": "paper"}, f" {AGREEING}, {JUDGED}.", True),
        ("symmetric_kl", {"preset": "topk"}, f" {AGREEING}, {UNJUDGED}.", True),
        ("infonce", {"preset": "paper"}, f" {PLAIN}, {JUDGED}.", True),
        ("infonce", {"preset": "topk"}, f" {PLAIN}, {UNJUDGED}.", False),
        (
            "infonce",
            {"preset": "topk", "suspect_action": "leave_out"},
            f" {PLAIN}, {UNJUDGED}.",
            True,
        ),
    ],
)
def test_an_embedders_card_names_a_judge_only_if_it_was_used(
    loss, selection, how, judged, identity
):
    text = text_of("embedder", identity, selection=selection, loss=LossSettings(name=loss))
    assert f"dot product. Trained by unijudge{how}\n" in text
    assert ("## Judge" in text) == judged


@pytest.mark.parametrize(
    ("preset", "how", "judged"),
    [
        ("unime-v2", f", {JUDGED} {PAPER}.", True),
        ("topk", f", {UNJUDGED}.", True),  # the judge's scores determine the hardest of these
        ("random", f", {UNJUDGED.replace('topk', 'random')}.", False),
    ],
)
def test_a_rerankers_card_names_a_judge_only_if_it_was_used(preset, how, judged, identity):
    text = text_of("reranker", identity, selection={"preset": preset})
    assert f"are the score. Trained by unijudge{how}\n" in text
    assert ("## Judge" in text) == judged


def test_a_card_names_no_path_of_the_machine(identity):
    """The paths of the selection, the training and the evaluations are shortened.

    Two evaluations with the same name both stay on the card.
    """
    home = "/home/me/client-x"
    made = Provenance.now().model_copy(
        update={"command": f"unijudge train embedder corpus={home}/pictures"}
    )
    rows = TripleManifest(
        corpus="c", scores="s", rows=1, negatives_in_row=1, statistics={}, made=made,
        selection={"preset": "paper", "scores": [f"{home}/scores-of-2b"], "corpus": f"{home}/pictures"},
    )  # fmt: skip
    measured = [
        ("eval", Evaluation(corpus=f"{home}/{name}", subsets={"s": {"mrr": 1.0}}))
        for name in ("val", "test")
    ]
    settings = EmbedderSettings(corpus=f"{home}/pictures", triples=f"{home}/t", out=f"{home}/o")
    begun = Beginning(settings={}, inputs={}, made=made)
    story = RunFacts(settings, begun, {}, {}, rows, [identity], measured)
    text = card(artefact("embedder", "owner/base"), story, tiled=False, license=None)
    assert "client-x" not in text
    for said in (
        "scores-of-2b",
        "corpus=pictures",
        "eval, on the corpus val:",
        "eval, on the corpus test:",
    ):
        assert said in text


def test_a_base_on_a_disk_is_named_by_its_folder(tmp_path, identity):
    (tmp_path / "tiny").mkdir()
    text = text_of("embedder", identity, base=str(tmp_path / "tiny"))
    assert "| base model | tiny |" in text
    assert "The base model, `tiny`, has" in text
    assert str(tmp_path) not in text
    assert "| base model | owner/base |" in text_of("embedder", identity)


def test_the_service_answers_the_rerankers_example(identity):
    """The card's own request gets an order of its documents."""
    text = text_of("reranker", identity)
    ((path, body),) = re.findall(
        r"^curl -s http://[^/]+(/\S+) .*\n  -d '(.+)'$", text, re.MULTILINE
    )
    results = posted(path, json.loads(body))["results"]
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)


SHAPES = list(
    itertools.product(
        ["embedder", "reranker"], ["merged", "adapter"], [True, False], [None, "<image>"]
    )
)


@pytest.mark.parametrize(("kind", "form", "pairs", "bare"), SHAPES)
@pytest.mark.parametrize(("edge", "tiled"), [(None, False), (None, True), (672, False)])
def test_the_cards_commands_settings_and_routes_exist(
    identity, kind, form, pairs, bare, edge, tiled
):
    """Its commands, settings and routes exist in unijudge."""
    of = replace(artefact(kind, "owner/base"), form=form, pairs=pairs, bare=bare, edge=edge)
    settings = (EmbedderSettings if kind == "embedder" else RerankerSettings)(
        corpus="c", triples="t", out="o"
    )
    run = RunFacts(
        settings, Beginning(settings={}, inputs={}, made=None), {}, {}, None, [identity], []
    )
    text = card(of, run, tiled=tiled, license=None)
    assert (form == "adapter") == any(
        words[:2] == ["train", "export"] for words in commands(text)
    ) or bare
    for words in commands(text):
        check_command(words)
    check_routes(text)
    check_keys(text, [EmbedderSettings, RerankerSettings])
