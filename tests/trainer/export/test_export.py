"""Exported models, loaded by other libraries as their cards say: the numbers are ours."""

import asyncio
import json
import re
import resource
import shlex
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig

from judge_service.backends import open_judge
from judge_service.settings import ServiceSettings
from tests.families import MAKERS
from tests.trainer.conftest import write_rows
from tests.trainer.exported import (
    CONTENTS,
    FITTING,
    PAIRS,
    TALL,
    as_given,
    log_odds,
    quiet,
    run_card,
    trained_embedder,
    trained_reranker,
    vectors,
)
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.export.agreement import sample_of
from trainer.export.export import OLD_KEYS, _evaluation, export
from trainer.export.model_card import _library
from trainer.export.sentence_transformers_files import is_exported
from trainer.training.settings import RerankerSettings
from unijudge.content import Content
from unijudge.errors import DataError, ModelError, SettingsError
from unijudge.formats.rankings import Evaluation
from unijudge.formats.scores import ScoreManifest
from unijudge.judging.prompt import Prompt
from unijudge.provenance import Beginning
from unijudge.settings import load_settings
from unijudge.storage.files import file_sha256, folder_sha256, publish_json, read_json

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
    # As a card's reader puts an adapter's base beside.
    (folder / Path(wide.name).name).symlink_to(wide.name)
    return trained_embedder(corpus, triples, wide, folder / "embedder-run")


@pytest.fixture(scope="module")
def reranker(corpus, triples, wide, folder):
    return trained_reranker(corpus, triples, wide, folder / "reranker-run")


@pytest.fixture(scope="module", params=["merged", "adapter"])
def exported(request, embedder, folder):
    out = folder / f"embedder-{request.param}"
    export(embedder, out, request.param)
    assert is_exported(out)
    return out


@pytest.fixture(scope="module", params=["merged", "adapter"])
def exported_reranker(request, reranker, folder):
    out = folder / f"reranker-{request.param}"
    export(reranker, out, request.param)
    assert is_exported(out)
    return out


def evaluation_of(corpus, model, folder):
    embed_corpus(EmbedSettings(corpus=corpus.folder, out=folder / "vectors", model=model), quiet)
    evaluate(
        EvaluateSettings(
            corpus=corpus.folder, vectors=folder / "vectors", out=folder / "evaluation"
        )
    )
    return folder / "evaluation"


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
    made = run_card(
        exported_reranker, "transformers" if merged else "transformers and PEFT", monkeypatch
    )
    pair = [(Content(image=TALL), Content("a red fox"))]
    assert gap(made["log_odds"], log_odds(wide, reranker / "adapter", Prompt(), pair)) < TOLERANCE


def test_the_service_gives_our_log_odds(reranker, folder, wide):
    """By the settings of the card's command, whatever TOML would take its name for."""
    out = folder / "2025-11-03"
    export(reranker, out)
    (command,) = re.findall(
        r"```bash\nunijudge judge serve \\\n(.+?)```", (out / "README.md").read_text(), re.DOTALL
    )
    words = shlex.split(command.replace("\\\n", " ").replace("2025-11-03", str(out)))
    settings = load_settings(ServiceSettings, None, words)
    transformers = settings.model.model_copy(update={"backend": "transformers", "device": "cpu"})
    judge = open_judge(settings.model_copy(update={"model": transformers}))
    answers = [
        asyncio.run(judge.judge(query, [candidate]))[0].log_odds for query, candidate in PAIRS
    ]
    assert gap(answers, log_odds(wide, reranker / "adapter", Prompt())) < TOLERANCE


def test_a_question_that_names_the_candidate_first_is_no_cross_encoder(
    corpus, triples, wide, folder, monkeypatch
):
    """sentence-transformers would swap the pictures of a pair; transformers need not."""
    prompt = Prompt(order="candidate_first", instruction='Is this "it"?\n')
    run = trained_reranker(corpus, triples, wide, folder / "candidate-first-run", prompt=prompt)
    out = folder / "candidate-first"
    export(run, out)
    assert not (out / "modules.json").exists()
    assert "CrossEncoder(" not in (out / "README.md").read_text()
    made = run_card(out, "transformers", monkeypatch)
    pair = [(Content(image=TALL), Content("a red fox"))]
    assert gap(made["log_odds"], log_odds(wide, run / "adapter", prompt, pair)) < TOLERANCE


@pytest.mark.parametrize(
    ("family", "encoding"), [("qwen3_vl", "chat"), ("llava_onevision", "vlm2vec")]
)
def test_other_families_are_exported(family, encoding, corpus, triples, wide, tmp_path):
    """Pictures within the budget, where a processor knows none: the card says so."""
    MAKERS[family](tmp_path / family)
    model = wide.model_copy(update={"name": str(tmp_path / family), "encoding": encoding})
    run = trained_embedder(corpus, triples, model, tmp_path / "run")
    export(run, tmp_path / "out")
    tiled = family == "llava_onevision"
    assert (
        "the model's processor has no limits of pixels"
        in (tmp_path / "out" / "README.md").read_text()
    ) == tiled
    contents = [
        Content("\n a red fox "),
        Content(image=FITTING),
        Content("Describe the image.\n", FITTING),
    ]
    contents += [] if tiled else CONTENTS
    found = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(
        [as_given(one) for one in contents]
    )
    assert gap(found, vectors(model, run / "adapter", contents)) < TOLERANCE


@pytest.mark.parametrize(("family", "encoding"), [("qwen2_vl", "lamra"), ("llava_next", "vlm2vec")])
def test_prompts_that_no_file_can_say_are_refused(
    family, encoding, corpus, triples, wide, tmp_path
):
    MAKERS[family](tmp_path / family)
    model = wide.model_copy(update={"name": str(tmp_path / family), "encoding": encoding})
    run = trained_embedder(corpus, triples, model, tmp_path / "run")
    with pytest.raises(
        SettingsError, match=f"{encoding}' of {family}, which the files of an export cannot"
    ):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("encoding", "form"), [("chat", "merged"), ("vlm2vec", "adapter")])
def test_faithful_modes_are_exported(encoding, form, corpus, triples, wide, tmp_path, monkeypatch):
    """Squashed pictures: the card's code squashes. Strings without a template: for transformers alone."""
    MAKERS["qwen2_vl"](tmp_path / "base")
    model = wide.model_copy(
        update={"name": str(tmp_path / "base"), "encoding": encoding, "resize": "square"}
    )
    run = trained_embedder(corpus, triples, model, tmp_path / "run")
    export(run, tmp_path / "out", form)
    card = (tmp_path / "out" / "README.md").read_text()
    ours = vectors(model, run / "adapter", [BOTH])
    made = run_card(
        tmp_path / "out",
        "transformers" if form == "merged" else "transformers and PEFT",
        monkeypatch,
    )
    assert gap(made["vectors"], ours) < TOLERANCE
    assert "Resize each image to 112 × 112 pixels" in card
    assert "**mteb**" not in card, "it would give pictures as they are"
    if encoding == "vlm2vec":
        assert not (tmp_path / "out" / "modules.json").exists()
        assert "SentenceTransformer(" not in card
    else:
        made = run_card(tmp_path / "out", "sentence-transformers", monkeypatch)
        assert gap(made["vectors"][2], ours) < TOLERANCE


@pytest.mark.parametrize("licence", [None, "apache-2.0"])
def test_the_card_says_how_the_model_came_to_be(
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


def test_the_card_names_the_judge_where_its_scores_still_lie_there(
    corpus, model, tmp_path, identity
):
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


def test_an_exported_adapter_names_no_path_of_this_machine(exported, embedder, wide):
    """Neither in its card nor in what other libraries read; the run itself keeps the whole one."""
    for path in exported.iterdir():
        if path.suffix in (".md", ".json", ".jinja"):
            assert str(Path(wide.name).parent) not in path.read_text(), path.name
    if exported.name.endswith("adapter"):
        config = json.loads((exported / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == Path(wide.name).name


def test_an_export_can_be_read_by_other_users_and_older_libraries(exported, embedder, wide):
    """What libraries write is for one user alone, and names what only their newest versions know."""
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) & 0o444
        for path in [*exported.rglob("*")]
        if path.is_file()
    }
    assert set(modes.values()) == {exported.stat().st_mode & 0o444}
    assert not (embedder / "adapter" / "README.md").exists(), (
        "a form that names the base by a path of this machine"
    )
    tokenizer = json.loads((exported / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only"} & tokenizer.keys()
    if exported.name.endswith("merged"):
        config = json.loads((exported / "config.json").read_text())
        text = config["text_config"]
        assert config["torch_dtype"] == text["torch_dtype"] == config["dtype"]
        assert (text["rope_theta"], text["rope_scaling"]) == (10_000.0, text["rope_parameters"])
        whole, base = (
            AutoConfig.from_pretrained(place).to_dict() for place in (exported, wide.name)
        )
        assert whole["text_config"]["rope_parameters"] == base["text_config"]["rope_parameters"]
    else:
        config = json.loads((exported / "adapter_config.json").read_text())
        assert config.keys() <= OLD_KEYS
        whole = peft.PeftConfig.from_pretrained(str(embedder / "adapter")).to_dict()
        changed = {"base_model_name_or_path": config["base_model_name_or_path"]}
        assert peft.PeftConfig.from_pretrained(str(exported)).to_dict() == whole | changed


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    embedder, corpus, triples, wide, tmp_path, monkeypatch
):
    def refused(error, match, run=embedder, **given):
        with pytest.raises(error, match=match):
            export(run, tmp_path / "out", **given)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob("out*"))

    refused(DataError, r"settings\.json: no such file", run=tmp_path)
    refused(
        SettingsError, "--license 'Apache 2.0': not a short name of the hub", license="Apache 2.0"
    )
    unfinished = shutil.copytree(embedder, tmp_path / "unfinished")
    shutil.rmtree(unfinished / "adapter")
    refused(DataError, "unfinished: the training is not finished", run=unfinished)
    foreign = shutil.copytree(embedder, tmp_path / "foreign")
    config = json.loads((foreign / "adapter" / "adapter_config.json").read_text())
    (foreign / "adapter" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "other"})
    )
    refused(ModelError, "is an adapter for other, but the run trained an adapter for", run=foreign)
    older = shutil.copytree(embedder, tmp_path / "older")
    (older / "settings.json").write_text(
        (older / "settings.json").read_text().replace('"batch_size"', '"rows_at_once"')
    )
    refused(
        DataError,
        r"not the settings of this kind of training in this version \(rows_at_once: ",
        run=older,
    )
    for name, torn, match in [
        (
            "environment.json",
            '{"torch":',
            r"environment\.json: no run's environment of this version .Invalid JSON",
        ),
        ("metrics.jsonl", "", "torn: no step is logged yet"),
        ("metrics.jsonl", "[1]\n", r"metrics\.jsonl:1: not the metrics of a step"),
        (
            "adapter/adapter_config.json",
            '{"peft_ty',
            r"adapter_config\.json: no adapter config of this version",
        ),
    ]:
        broken = shutil.copytree(embedder, tmp_path / "torn", dirs_exist_ok=True)
        (broken / name).write_text(torn)
        refused(DataError, match, run=broken)
    other = evaluation_of(corpus, wide, tmp_path)
    refused(DataError, "evaluates vectors of another adapter", evaluations=[other])

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"taken: .*mine\.txt"):
        export(embedder, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_torn_adapter_or_one_with_layers_missing_is_refused(form, embedder, tmp_path):
    run = shutil.copytree(embedder, tmp_path / "run")
    weights = run / "adapter" / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if ".layers.0." in name}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not match the model \(tensors missing: 28 "):
        export(run, tmp_path / "out", form)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ModelError, match="does not match the model"):
        export(run, tmp_path / "out", form)
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_leaves_nothing(embedder, tmp_path):
    """A limit on the size of files stands in for it: the weights are the first that do not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            DataError, match=r"out: cannot be written .*no partial file was left there"
        ):
            export(embedder, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("out*"))


def limits(folder):
    return (folder / "README.md").read_text().split("## Limits")[1].split("\n## ")[0]


def test_kind_c10_the_card_holds_what_was_measured_and_not_more(corpus, triples, wide, tmp_path):
    """In float32 next to nothing; merged in bfloat16 what it really costs, which is no 1e-4."""
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


def test_rows_that_are_gone_are_not_claimed(corpus, model, tmp_path):
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


def test_an_evaluation_whose_vectors_are_gone_is_not_called_this_runs(
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
def test_the_hub_is_told_the_library_that_loads_it(changes, library):
    assert (
        _library(SimpleNamespace(**{"kind": "embedder", "pairs": False, "bare": None} | changes))
        == library
    )
