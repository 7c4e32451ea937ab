"""Exported models give the numbers of unijudge in other libraries, loaded with the code of their cards."""

import asyncio
import json
import re
import shlex
import stat
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig

from judge_service.backends import open_judge
from judge_service.settings import ServiceSettings
from tests.families import MAKERS
from tests.trainer.exported import (
    CONTENTS,
    FITTING,
    PAIRS,
    TALL,
    as_given,
    gap,
    log_odds,
    run_card,
    trained_embedder,
    trained_reranker,
    vectors,
)
from trainer.export.export import OLD_KEYS, export
from trainer.export.sentence_transformers_files import is_exported
from unijudge.content import Content
from unijudge.judging.prompt import Prompt
from unijudge.settings import load_settings

pytest.importorskip("torchvision")  # transformers' processors need torchvision
TOLERANCE = 1e-4
BOTH = Content("Find an image like this one.", TALL)
"""What the cards' code asks about."""


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


def test_an_adapter_moves_the_vectors(wide, embedder):
    """Without this difference, the other tests would show nothing."""
    assert gap(vectors(wide, embedder / "adapter"), vectors(wide, None)) > 0.01


def test_sentence_transformers_gives_our_vectors(exported, embedder, wide, monkeypatch):
    """The inputs are alone, by kind and mixed, with the picture or the text first."""
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
    """A merged model is used as `model.name`, an adapter as `model.adapter`."""
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
    """The service has the settings of the card's command.

    The name of the folder is a date, which TOML would read as a value.
    """
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


def test_a_prompt_with_the_candidate_first_is_not_exported_as_a_cross_encoder(
    corpus, triples, wide, folder, monkeypatch
):
    """sentence-transformers would exchange the pictures of a pair. transformers does not."""
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
    """If a processor has no pixel budget, the card tells how to scale pictures."""
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


@pytest.mark.parametrize(("encoding", "form"), [("chat", "merged"), ("vlm2vec", "adapter")])
def test_formats_of_released_models_are_exported(
    encoding, form, corpus, triples, wide, tmp_path, monkeypatch
):
    """The code of the card scales pictures as in training. Strings without a template work only with transformers."""
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


def test_an_exported_adapter_names_no_path_of_this_machine(exported, embedder, wide):
    """The card and the files for other libraries name no such path. The run itself keeps the whole path."""
    for path in exported.iterdir():
        if path.suffix in (".md", ".json", ".jinja"):
            assert str(Path(wide.name).parent) not in path.read_text(), path.name
    if exported.name.endswith("adapter"):
        config = json.loads((exported / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == Path(wide.name).name


def test_an_export_can_be_read_by_other_users_and_older_libraries(exported, embedder, wide):
    """Libraries write files that only one user can read, and that name options of their newest version only."""
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
