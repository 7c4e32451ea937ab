"""The card of an exported model, compared with its run, its rows and its evaluations."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.trainer.conftest import write_rows
from tests.trainer.exported import (
    evaluation_of,
    gap,
    trained_embedder,
    trained_reranker,
    vectors,
)
from trainer.export.agreement import sample_of
from trainer.export.export import _evaluation, export
from trainer.export.model_card import _library
from trainer.training.settings import RerankerSettings
from unijudge.formats.rankings import Evaluation
from unijudge.formats.scores import ScoreManifest
from unijudge.provenance import Beginning
from unijudge.storage.files import file_sha256, folder_sha256, publish_json, read_json

pytest.importorskip("torchvision")  # transformers' processors need torchvision


@pytest.mark.parametrize("licence", [None, "apache-2.0"])
def test_the_card_describes_how_the_model_was_made(
    licence, embedder, corpus, triples, wide, tmp_path, monkeypatch
):
    evaluated = evaluation_of(
        corpus, wide.model_copy(update={"adapter": embedder / "adapter"}), tmp_path
    )
    export(embedder, tmp_path / "named", evaluations=[evaluated], license=licence)
    text = (tmp_path / "named" / "README.md").read_text()
    front = text.split("---")[1]
    assert ('license: "apache-2.0"\n' in front) == (licence is not None)
    assert (f"{licence}, as stated" if licence else "No licence was stated") in text.split(
        "## Licence"
    )[1]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE))
    assert rows["lora.rank"] == "4"
    assert rows["loss.name"] == "symmetric_kl"
    assert rows["rows"] == str(len(corpus.queries))
    assert rows["fingerprint of the corpus"] == corpus.fingerprint
    assert rows["base model"] == Path(wide.name).name
    assert wide.name not in text, "no path of this machine"
    assert f"| squares | {len(corpus.queries)} |" in text.split("## Measured")[1]


def test_the_card_names_the_judge_if_its_scores_still_exist(corpus, model, tmp_path, identity):
    scores = ScoreManifest(
        corpus=corpus.fingerprint,
        vectors=None,
        queries=8,
        shard_size=8,
        k=7,
        pool="global",
        judge=identity,
    )
    publish_json(tmp_path / "scores" / "manifest.json", scores)
    write_rows(
        corpus, tmp_path / "triples", scores=file_sha256(tmp_path / "scores" / "manifest.json")
    )
    run = trained_embedder(corpus, tmp_path / "triples", model, tmp_path / "run")
    export(run, tmp_path / "known")
    judge = (tmp_path / "known" / "README.md").read_text().split("## Judge")[1]
    assert f"| prompt_fingerprint | {identity.prompt_fingerprint} |" in judge
    shutil.rmtree(tmp_path / "scores")
    export(run, tmp_path / "unknown")
    assert "## Judge" not in (tmp_path / "unknown" / "README.md").read_text()
    shutil.rmtree(tmp_path / "triples")
    export(run, tmp_path / "gone")
    assert "no longer exists or has changed" in (tmp_path / "gone" / "README.md").read_text()


def limits(folder):
    return (folder / "README.md").read_text().split("## Limits")[1].split("\n## ")[0]


def test_the_card_states_only_measured_numbers(corpus, triples, wide, tmp_path):
    """The difference is almost zero in float32.

    A model merged in bfloat16 has a larger difference, and the card states it.
    """
    for dtype, least, most in [("float32", 0, 1e-5), ("bfloat16", 1e-4, 0.1)]:
        model = wide.model_copy(update={"dtype": dtype})
        run = trained_embedder(corpus, triples, model, tmp_path / f"{dtype}-run")
        export(run, tmp_path / dtype)
        said = limits(tmp_path / dtype)
        found = re.search(
            rf"Measured at export in {dtype}, on 8 rows of the run, .* differ by at most (\S+), the "
            r"cosine of two vectors of the same content is (\S+) or more, and the nearest of 16 items is the same "
            r"for (\d) of 8 queries",
            said,
        )
        gap_said, cosine, _ = map(float, found.groups())
        assert least <= gap_said <= most
        negatives = [corpus.items[1], *[corpus.items[0]] * 7]
        rows = [corpus.content(entry) for entry in [*corpus.queries, *corpus.items, *negatives]]
        merged = model.model_copy(update={"name": str(tmp_path / dtype)})
        ours = vectors(model, run / "adapter", rows)
        theirs = np.concatenate([vectors(merged, None, [row]) for row in rows])
        assert gap(ours, theirs) <= gap_said + 1e-6
        assert (ours * theirs).sum(1).min() >= cosine - 1e-5


def test_the_card_does_not_describe_deleted_rows(corpus, model, tmp_path):
    write_rows(corpus, tmp_path / "triples")
    run = trained_reranker(corpus, tmp_path / "triples", model, tmp_path / "run")
    export(run, tmp_path / "measured")
    assert "on 8 rows of the run, against the run's base and adapter: log-odds differ by" in limits(
        tmp_path / "measured"
    )
    write_rows(corpus, tmp_path / "triples", scores="another selection of the same corpus")
    settings = RerankerSettings(
        corpus=corpus.folder, triples=tmp_path / "triples", out=run, num_negatives=3
    )
    begun = read_json(run / "settings.json", Beginning).inputs
    assert "was not measured: the training rows no longer exist" in sample_of(settings, begun)
    shutil.rmtree(tmp_path / "triples")
    export(run, tmp_path / "gone", "adapter")
    assert "was not measured: the training rows no longer exist" in limits(tmp_path / "gone")


def test_a_reranking_is_marked_unless_this_runs_model_reranked(identity, reranker, tmp_path):
    merged = folder_sha256(reranker / "merged")
    for weights, mark in [
        (merged, ""),
        ("0123", "(reranked by some-judge, whose weights 0123 are not the weights of"),
    ]:
        judge = identity.model_copy(update={"weights": weights, "model": "some-judge"}).model_dump()
        publish_json(tmp_path / "metrics.json", Evaluation(corpus="c", subsets={}, judge=judge))
        found = _evaluation(tmp_path, reranker)[1].strip()
        assert found.startswith(mark)
        assert bool(found) == bool(mark)


def test_an_evaluation_without_its_vectors_is_not_attributed_to_this_run(
    embedder, corpus, wide, tmp_path
):
    evaluated = evaluation_of(
        corpus, wide.model_copy(update={"adapter": embedder / "adapter"}), tmp_path
    )
    export(embedder, tmp_path / "seen", evaluations=[evaluated])
    assert "not verified" not in (tmp_path / "seen" / "README.md").read_text()
    (tmp_path / "vectors").rename(tmp_path / "moved")
    export(embedder, tmp_path / "unseen", evaluations=[evaluated])
    assert (
        f"\n{evaluated.name} (not verified, since the evaluated vectors"
        in (tmp_path / "unseen" / "README.md").read_text()
    )


@pytest.mark.parametrize(
    ("changes", "library"),
    [
        ({}, "sentence-transformers"),
        ({"bare": "<|image_pad|>"}, "transformers"),
        ({"kind": "reranker", "pairs": True}, "sentence-transformers"),
        ({"kind": "reranker", "pairs": False}, "transformers"),
    ],
)
def test_the_card_names_the_library_that_loads_the_model(changes, library):
    assert (
        _library(SimpleNamespace(**{"kind": "embedder", "pairs": False, "bare": None} | changes))
        == library
    )
