"""The embedder on a tiny Qwen2.5-VL: embedding, rows, masks, and a training that learns and can be resumed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainer.conftest import COLORS, write_rows
from tests.trainer.runs import quiet, run_settings
from trainer.data.collate import collate
from trainer.data.dataset import Examples
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.losses.settings import LossSettings
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed
from trainer.models.lora import add_lora
from trainer.models.settings import LoraSettings
from trainer.training.embedder import loss_of, train_embedder
from unijudge.content import Content
from unijudge.errors import BadImage, DataError, ModelError, SettingsError, TrainingError
from unijudge.formats.corpus import write_corpus
from unijudge.formats.inventory import check
from unijudge.formats.rankings import read_rankings, write_rankings
from unijudge.formats.scores import Judged
from unijudge.formats.triples import (
    Negative,
    Scale,
    Triple,
    TripleManifest,
    finish_triples,
    read_triples,
    write_triples,
)
from unijudge.formats.vectors import VectorFolder
from unijudge.storage.files import read_json


@pytest.fixture
def backbone(model):
    return open_backbone(model)


def test_a_batch_gives_the_vectors_of_its_single_inputs(backbone, corpus):
    contents = [corpus.content(query) for query in corpus.queries] + [
        Content(text="x " * 40),
        Content(text="y"),
    ]
    with torch.inference_mode():
        together = embed(backbone, contents)
        alone = torch.cat([embed(backbone, [content]) for content in contents])
    assert together.norm(dim=1).allclose(torch.ones(len(contents)))
    assert (together - alone).abs().max() < 1e-5


def test_inputs_that_cannot_be_embedded(backbone):
    backbone.max_tokens = 100
    with pytest.raises(DataError, match=r"tokens is too long, since model\.max_tokens is 100"):
        embed(backbone, [Content(text="word " * 200)])
    with pytest.raises(BadImage, match="not a JPEG"):
        embed(backbone, [Content(image=b"junk")])


def test_a_model_or_an_adapter_that_does_not_fit(model, tmp_path, backbone):
    with pytest.raises(SettingsError, match=r"model\.name: required"):
        open_backbone(model.model_copy(update={"name": ""}))
    with pytest.raises(ModelError, match="cannot be loaded as a model"):
        open_backbone(model.model_copy(update={"name": str(tmp_path)}))
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing"):
        open_backbone(model.model_copy(update={"adapter": tmp_path}))
    with pytest.raises(ModelError, match="nothing_proj: no such linear layer"):
        add_lora(backbone, LoraSettings(target_modules=("nothing_proj",)))


def test_lora_trains_the_language_model_only(backbone):
    add_lora(backbone, LoraSettings(rank=2))
    names = [
        name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad
    ]
    assert len(names) == 2 * 7 * 3
    assert all("language_model" in name and "lora_" in name for name in names)


def test_a_batch_holds_each_content_once_and_masks_known_positives(corpus, triples):
    examples = Examples(corpus, triples, negatives=7)
    batch = collate([examples[0], examples[3]])
    assert len(batch.candidates) == 8
    assert batch.columns_BK.shape == (2, 8)
    assert batch.target_B.tolist() == [0, 3]
    assert batch.teacher_BK.tolist()[0] == pytest.approx([0.9] + [0.1] * 7)
    assert not batch.masked_BU(in_batch=True).any()
    few = collate([Examples(corpus, triples, negatives=2)[row] for row in (0, 3)])
    own = [set(few.columns_BK[row].tolist()) for row in range(2)]
    masked = few.masked_BU(in_batch=False)
    assert all(
        {c for c in range(len(few.candidates)) if not masked[row, c]} == own[row]
        for row in range(2)
    )


def test_a_known_positive_in_the_batch_is_not_a_negative(corpus, triples):
    examples = Examples(corpus, triples, negatives=7)
    other = examples[1].signs[0]
    first = replace(examples[0], excluded=examples[0].excluded.and_contents([other.content]))
    batch = collate([first, examples[3]])
    masked = batch.masked_BU(in_batch=True)
    assert masked.sum() == 1
    assert batch.candidates[int(masked[0].nonzero())].text == COLORS[1]


def test_rows_that_cannot_teach_are_refused(corpus, triples, tmp_path, backbone):
    with pytest.raises(TrainingError, match=r"num_negatives = 8, but .* stores 7"):
        Examples(corpus, triples, negatives=8)
    unjudged = Examples(
        corpus, write_rows(corpus, tmp_path / "unjudged", judged=False), negatives=3
    )
    batch = collate([unjudged[0], unjudged[1]])
    with pytest.raises(
        TrainingError, match="'kl' needs a judge's scores, but 8 of 8 rows lack scores"
    ):
        unjudged.check_judged("loss.name = 'kl'")
    assert loss_of(backbone, LossSettings(name="infonce"), batch)["infonce"].isfinite()
    drawn = Examples(corpus, write_rows(corpus, tmp_path / "fallback", fallback=True), negatives=2)[
        0
    ]
    assert drawn.teacher[1:] == [1.0, 1.0]


def test_a_judge_that_cannot_teach_is_warned_of_before_training(
    corpus, triples, model, tmp_path, caplog
):
    """All random negatives have the label 1, so the positive has the lowest score.

    Rows of a good judge cause no warning.
    """

    def warnings_about(rows, **loss):
        caplog.clear()
        settings = run_settings(
            corpus, rows, model, tmp_path / f"run{len(list(tmp_path.iterdir()))}", max_steps=1
        )
        train_embedder(settings.model_copy(update={"loss": LossSettings(**loss)}), quiet)
        return [
            record.getMessage()
            for record in caplog.records
            if "teaches little" in record.getMessage()
        ]

    assert warnings_about(triples) == []
    drawn = write_rows(corpus, tmp_path / "fallback", fallback=True)
    (warning,) = warnings_about(drawn)
    assert warning.startswith(f"{drawn}: the judge teaches little: ")
    assert "does not rank the positive first in 100% of 8 rows" in warning
    assert warnings_about(drawn, name="infonce") == [], "hard labels do not ask the judge"


@pytest.mark.parametrize(
    ("loss", "warned"),
    [
        ({"name": "kl"}, True),
        ({"name": "js"}, True),
        ({"name": "symmetric_kl"}, True),
        ({"name": "kl", "teacher_temperature": 0.5}, False),
        ({"name": "margin_mse"}, False),
        ({"name": "infonce"}, False),
    ],
)
def test_soft_labels_that_are_hard_are_warned_of_before_training(
    corpus, triples, model, tmp_path, caplog, loss, warned
):
    settings = run_settings(corpus, triples, model, tmp_path / "run", max_steps=1, warmup_steps=0)
    train_embedder(settings.model_copy(update={"loss": LossSettings(**loss)}), quiet)
    said = [message for message in caplog.messages if "soft labels equal hard labels" in message]
    assert len(said) == warned
    assert all(
        message.startswith(f"{triples}: the soft labels equal hard labels: ") for message in said
    )


@pytest.mark.parametrize(
    ("preset", "steps", "in_batch", "said"),
    [
        # 4 rows × 7 negatives × steps, of 8 items: 2 steps draw 56 of them, 3 steps draw 84.
        ("random", 2, 0, None),
        ("random", 3, 0, "84 negatives are drawn from 8 items, each about 10 times"),
        ("topk", 3, 0, None),
        # With the positives of other rows, 4 × 8 × 3 items are drawn.
        ("topk", 3, 1, "96 negatives are drawn from 8 items, each about 12 times"),
    ],
)
def test_a_pool_that_is_covered_is_warned_of_before_training(
    corpus, triples, model, tmp_path, caplog, preset, steps, in_batch, said
):
    write_triples(tmp_path / "rows", read_triples(triples, corpus.fingerprint))
    manifest = read_json(triples / "triples.json", TripleManifest)
    finish_triples(tmp_path / "rows", manifest.model_copy(update={"selection": {"preset": preset}}))
    settings = run_settings(
        corpus, tmp_path / "rows", model, tmp_path / "run", max_steps=steps, warmup_steps=0
    )
    loss = LossSettings(name="infonce", in_batch_weight=in_batch)
    train_embedder(settings.model_copy(update={"loss": loss}), quiet)
    warnings = [message for message in caplog.messages if "is small" in message]
    assert len(warnings) == (said is not None)
    if said:
        assert f"{tmp_path / 'rows'}: the pool of 'squares' is small: {said}" in warnings[0]


def test_weights_scales_and_overrides_reach_the_batch(corpus, tmp_path):
    """There are two judges, each with its own scale. A negative that a person confirmed has the label 0."""
    query, (positive, first, second, *_) = corpus.queries[0], corpus.items

    def pair(item):
        return {"item_id": item.item_id, "item_key": item.key, "rank": 0, "similarity": None,
                "yes_logprob": math.log(0.8), "no_logprob": math.log(0.2)}  # fmt: skip

    negatives = [Negative(**pair(first)), Negative(**pair(second), judge=1, overruled=True)]
    row = Triple(
        query.query_id, "s", Judged(**pair(positive)), negatives, weight=0.25, positive_judge=1
    )
    write_triples(tmp_path, [row])
    finish_triples(
        tmp_path,
        TripleManifest(
            corpus=corpus.fingerprint, scores="s", large_scores="l", selection={}, rows=1, negatives_in_row=2,
            statistics={}, scales=(Scale(), Scale(slope=0.5, intercept=-math.log(2))),
        ),
    )  # fmt: skip
    batch = collate([Examples(corpus, tmp_path, negatives=2)[0]])
    assert batch.weights_B.tolist() == [0.25]
    assert batch.teacher_BK.tolist()[0] == pytest.approx([0.5, 0.8, 0.0]), "√4 / 2 to 1 is even"


def test_a_training_does_not_start_from_an_adapter(corpus, triples, model, tmp_path):
    settings = run_settings(
        corpus, triples, model.model_copy(update={"adapter": tmp_path}), tmp_path / "run"
    )
    with pytest.raises(SettingsError, match=r"model\.adapter: a training starts a new adapter"):
        train_embedder(settings, quiet)


def test_an_input_that_cannot_be_embedded_is_named(corpus, model, tmp_path):
    """The input has a picture, which is not opened before. The error has its id and the reason."""
    short = model.model_copy(update={"max_source_pixels": 100})
    with pytest.raises(
        DataError, match=f"{corpus.queries[0].query_id}: image of 60×60 pixels: more than 100"
    ):
        embed_corpus(EmbedSettings(corpus=corpus.folder, out=tmp_path / "v", model=short), quiet)


def precision(corpus, model, out, adapter=None):
    embedding = EmbedSettings(
        corpus=corpus.folder,
        out=out / "vectors",
        model=model.model_copy(update={"adapter": adapter}),
        dtype="float32",
    )
    embed_corpus(embedding, quiet)
    report = evaluate(
        EvaluateSettings(corpus=corpus.folder, vectors=out / "vectors", out=out / "eval")
    )
    return report.subsets["squares"]["precision@1"]


@pytest.mark.parametrize("loss", ["symmetric_kl", "margin_mse", "infonce"])
def test_training_learns_the_colours(corpus, triples, model, tmp_path, loss):
    before = precision(corpus, model, tmp_path / "before")
    settings = run_settings(
        corpus, triples, model, tmp_path / "run",
        loss=LossSettings(name=loss, student_temperature=0.1, teacher_temperature=0.1), max_steps=60,
    )  # fmt: skip
    adapter = train_embedder(settings, quiet)
    after = precision(corpus, model, tmp_path / "after", adapter)
    print(f"{loss}: precision@1 {before:.2f} -> {after:.2f}")
    assert after >= before + 0.4
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["torch"]
    (tmp_path / "run" / "report.html").unlink()
    assert train_embedder(settings, quiet) == adapter, (
        "a finished run is not repeated, but its page is drawn"
    )
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    other = math.exp(
        -8
    )  # seven negatives: the judge's scores are .9 and .1, and the temperature is .1
    entropy = math.log(1 + 7 * other) + 8 * 7 * other / (1 + 7 * other)
    assert first["teacher_entropy"] == pytest.approx(entropy, rel=1e-5)
    assert first["teacher_one_hot"] == 1
    assert 0.8 * math.log(8) < first["student_entropy"] < math.log(8)
    assert "gradient norm" in (tmp_path / "run" / "report.html").read_text()
    assert check(tmp_path / "run").endswith("run, whole: 60 steps and 3 files of weights read")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"adapter_model\.safetensors: [0-9]+ bytes, but its header says"
    ):
        check(tmp_path / "run")


def test_an_interrupted_training_resumes_to_the_bit(corpus, triples, model, tmp_path):
    def interrupt(step, loss):
        if step == 17:
            raise KeyboardInterrupt

    whole = train_embedder(run_settings(corpus, triples, model, tmp_path / "whole"), quiet)
    with pytest.raises(KeyboardInterrupt):
        train_embedder(run_settings(corpus, triples, model, tmp_path / "twice"), interrupt)
    twice = train_embedder(run_settings(corpus, triples, model, tmp_path / "twice"), quiet)
    name = "adapter_model.safetensors"
    assert (whole / name).read_bytes() == (twice / name).read_bytes()


def test_embedding_resumes_by_part_and_names_damaged_parts(corpus, model, tmp_path, monkeypatch):
    settings = EmbedSettings(corpus=corpus.folder, out=tmp_path / "vectors", model=model)
    embed_corpus(settings, quiet)
    first = VectorFolder(settings.out, corpus).whole("items")
    (settings.out / "items-00000.parquet").unlink()
    other = settings.model_copy(update={"model": model.model_copy(update={"max_pixels": 6272})})
    with pytest.raises(DataError, match=r"holds other vectors .max_pixels differ"):
        embed_corpus(other, quiet)
    monkeypatch.setattr("unijudge.modeling.model_source.version", lambda library: "0.1+cpu")
    with pytest.raises(DataError, match=r"holds other vectors .inputs_version differ"):
        embed_corpus(settings, quiet)
    monkeypatch.undo()
    # A foreign folder is refused before the model is opened.
    monkeypatch.setattr("trainer.embedding.embed.OurModel", None)
    with pytest.raises(DataError, match=r"holds .* already, which would be mixed"):
        embed_corpus(settings.model_copy(update={"out": corpus.folder}), quiet)
    monkeypatch.undo()
    assert "pillow" in VectorFolder(settings.out, corpus).manifest.inputs_version
    seen = []
    embed_corpus(settings, lambda done, total: seen.append(total))
    assert set(seen) == {len(corpus.items)}
    assert np.array_equal(VectorFolder(settings.out, corpus).whole("items"), first)


def test_evaluation_by_hand(corpus, model, tmp_path):
    embed_corpus(
        EmbedSettings(corpus=corpus.folder, out=tmp_path / "v", model=model, dtype="float32"), quiet
    )
    report = evaluate(
        EvaluateSettings(corpus=corpus.folder, vectors=tmp_path / "v", out=tmp_path / "e", keep=3)
    )
    rows = list(read_rankings(tmp_path / "e" / "rankings.parquet"))
    items, queries = (
        VectorFolder(tmp_path / "v", corpus).whole(kind) for kind in ("items", "queries")
    )
    for number, row in enumerate(rows):
        scores = items @ queries[number]
        assert row.gold_rank == 1 + (np.delete(scores, number) >= scores[number]).sum()
        assert row.item_ids == [corpus.items[place].item_id for place in np.argsort(-scores)[:3]]
    measures = report.subsets["squares"]
    ranks = np.array([row.gold_rank for row in rows])
    assert measures["precision@1"] == (ranks == 1).mean()
    assert measures["recall@5"] == (ranks <= 5).mean()
    assert measures["mrr"] == pytest.approx((1 / ranks).mean())
    assert report.inputs["corpus"] == corpus.fingerprint
    assert check(tmp_path / "e") == f"{tmp_path / 'e'}: evaluation, whole: {len(rows)} rows read"
    write_rankings(tmp_path / "e" / "rankings.parquet", rows[1:])
    with pytest.raises(DataError, match=r"rankings\.parquet: changed since it was written"):
        check(tmp_path / "e")


def test_evaluation_over_closed_lists(corpus, model, tmp_path):
    """A query may have a fixed list of candidates. A list without its positive is refused."""

    def closed(name, lists):
        queries = [
            replace(q, candidates=rows) for q, rows in zip(corpus.queries, lists, strict=True)
        ]
        write_corpus(
            tmp_path / name, corpus.items, queries, images=corpus.images, rejects=0, source="t"
        )
        embed_corpus(
            EmbedSettings(corpus=tmp_path / name, out=tmp_path / f"{name}-v", model=model), quiet
        )
        return evaluate(
            EvaluateSettings(
                corpus=tmp_path / name, vectors=tmp_path / f"{name}-v", out=tmp_path / f"{name}-e"
            )
        )

    report = closed("alone", [(row,) for row in range(len(COLORS))])
    assert report.subsets["squares"]["precision@1"] == 1
    assert report.subsets["squares"]["candidates"] == 1
    with pytest.raises(DataError, match="no positive is among its candidates"):
        closed("without", [((row + 1) % len(COLORS),) for row in range(len(COLORS))])
    assert not (tmp_path / "without-e" / "metrics.json").exists()
