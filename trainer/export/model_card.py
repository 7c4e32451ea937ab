"""The card of an exported model: README.md, with the front matter by which the Hugging Face hub shows it.

Everything on it comes from the run, from the manifests that the run names, and from evaluations that are given; nothing
is measured here. It names no path of the machine that exported it: the base of an adapter, where it is a folder, is to
be put beside.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.export.usage import Artefact, loading
from trainer.training.settings import EmbedderSettings, FinetuneSettings
from unijudge.formats.rankings import Evaluation
from unijudge.formats.triples import TripleManifest
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.pages.markdown import facts, made_by, table
from unijudge.provenance import Beginning, Provenance, without_places, without_places_in

ABOUT = {
    "embedder": """A universal multimodal embedder: texts, images, and both in one become unit vectors, compared by
their dot product.""",
    "reranker": """A multimodal reranker: asked whether a candidate meets the requirements of a query, it answers Yes or
No; the log-odds of the two is the score.""",
}
PAPER = "the method of UniME-V2, arXiv 2510.13515"
UNJUDGED = {"topk", "random", "cyclic"}
"""Presets of a selection that ask no judge."""
LIMITS = """* Numbers hold for {dtype}, and for other libraries up to what they round otherwise. {agreement}
* Turn photographs, and put transparent pictures on white, before you give them: unijudge does (by their EXIF data), the
  libraries above do not.
* Text that spells one of the model's control tokens becomes that token here; in unijudge it stays text.
* unijudge refuses an input of more than {max_tokens} tokens, unless `model.on_long` says otherwise;
  sentence-transformers cuts it at the tokenizer's limit."""
SCALED = """* Pictures are scaled to between {min_pixels} and {max_pixels} pixels, by Pillow, as the code above asks
  for. torchvision scales a little otherwise, and numbers then differ in the third decimal."""
TILED = """* A picture of less than {min_pixels} or more than {max_pixels} pixels must be scaled into that range
  before it is given: this model's processor has no such budget."""
SQUASHED = """* Pictures are squashed to {edge} × {edge} pixels before they are given, as the code above does: this
  model was taught with such pictures, and its processor would keep their shape."""
BARE = """* It reads strings without a template, and the tokens of a picture count on like text.
  sentence-transformers and vLLM place a picture's tokens in a plane, so for them this folder is none. unijudge takes it
  with `model.encoding = "vlm2vec"`."""
CANDIDATE_FIRST = """* Its question names the candidate first. sentence-transformers' CrossEncoder hands pictures over
  query first, so for it this folder is none: the pictures of a pair would change places."""
ADAPTER = "* The adapter needs the very weights that it was trained on: {base}{beside}."
BESIDE = ", a folder, to be put where the code is run"
PIPELINE = {"embedder": "feature-extraction", "reranker": "text-ranking"}
"""The hub's name of what it does."""


@dataclass(frozen=True)
class Story:
    """What is known about a run."""

    settings: FinetuneSettings
    begun: Beginning
    environment: Mapping[str, str]
    last: Mapping[str, float]
    """The last line of its metrics."""
    triples: TripleManifest | None
    """Of its training rows, where they still lie there as they were."""
    judges: Sequence[JudgeIdentity]
    """Who scored them, where that can still be read."""
    evaluations: Sequence[tuple[str, Evaluation]]
    """The name of its folder, and what was measured."""
    agreement: str = ""
    """How far the exported numbers are from those of the run."""


def card(of: Artefact, story: Story, *, tiled: bool, license: str | None) -> str:  # noqa: A002  what the hub calls it
    """The whole text.

    Args:
        of: What was exported.
        story: How it came to be.
        tiled: Whether the model's processor cuts pictures into tiles, and so has no budget of pixels.
        license: The hub's short form, if there is one.
    """
    sections = [
        _front_matter(of, license),
        f"# {of.name}\n\n{ABOUT[of.kind]} {_how(story)}",
        loading(of),
        _limits(of, story, tiled=tiled),
        _training(of, story),
        _rows(story),
        *(f"## Judge\n\n{facts(judge)}" for judge in story.judges if _is_judged(story)),
        _measured(story),
        _origin(story),
        "## Licence\n\n"
        + (f"{license}, as stated by who exported this." if license else "None was stated by who exported this.")
        + f" The model that it was made of, `{of.base_name}`, has a licence of its own, and so has the training data.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(of: Artefact, license: str | None) -> str:  # noqa: A002
    lines = ["---", *([f"license: {json.dumps(license)}"] if license else [])]
    if not Path(of.base).is_dir():
        relation = "adapter" if of.form == "adapter" else "finetune"
        lines += [f"base_model: {json.dumps(of.base)}", f"base_model_relation: {relation}"]
    lines += [f"library_name: {_library(of)}", f"pipeline_tag: {PIPELINE[of.kind]}"]
    lines += ["tags:", *(f"- {tag}" for tag in ("unijudge", "multimodal", of.kind))]
    return "\n".join([*lines, "---"])


def _library(of: Artefact) -> str:
    """By what the hub says it is loaded: sentence-transformers, where the folder is one of its models."""
    is_one = of.pairs if of.kind == "reranker" else not of.bare
    return "sentence-transformers" if is_one else "transformers"


def _preset(story: Story) -> str | None:
    """How the rows' negatives were chosen, where that is still known."""
    return story.triples.selection.get("preset") if story.triples else None


def _is_taught(story: Story) -> bool:
    """Whether a judge's scores are in the loss; a reranker's say which negative is the hardest."""
    settings = story.settings
    return settings.loss.name != "infonce" if isinstance(settings, EmbedderSettings) else _preset(story) != "random"


def _is_judged(story: Story) -> bool:
    """Whether a judge had a part in it: in the loss, or in what the rows are."""
    suspects = story.triples.selection.get("suspects", "keep") if story.triples else "keep"
    return _is_taught(story) or _preset(story) not in UNJUDGED or suspects != "keep"


def _how(story: Story) -> str:
    """How it was trained, in a sentence: by its loss, and by what the manifest of its rows says."""
    settings, preset, how = story.settings, _preset(story), "Trained by unijudge"
    like_the_paper = preset is not None and preset not in UNJUDGED
    if isinstance(settings, EmbedderSettings):
        like_the_paper &= settings.loss.name == "symmetric_kl"
        agree = "so that its similarities agree with a multimodal LLM's judgements"
        how += f" {agree if _is_taught(story) else 'contrastively, from labels alone'}"
    if preset is not None:
        unjudged = f"negatives that the selection `{preset}` took without a judge"
        how += f", on {unjudged if preset in UNJUDGED else 'hard negatives that a multimodal LLM judged'}"
    return f"{how} ({PAPER})." if like_the_paper else f"{how}."


def _limits(of: Artefact, story: Story, *, tiled: bool) -> str:
    lines = [LIMITS, SQUASHED if of.edge else TILED if tiled else SCALED]
    lines += [BARE] if of.bare else []
    lines += [CANDIDATE_FIRST] if of.kind == "reranker" and not of.pairs else []
    lines += [ADAPTER] if of.form == "adapter" else []
    beside = BESIDE if Path(of.base).is_dir() else ""
    named = {"base": of.base_name, "beside": beside, "agreement": story.agreement}
    return "\n".join(["## Limits", "", *lines]).format(**vars(of) | named)


def _training(of: Artefact, story: Story) -> str:
    settings = story.settings.model_dump(mode="json", exclude={"corpus", "triples", "out", "model"})
    flat = {
        f"{group}.{name}" if isinstance(value, dict) else group: inner
        for group, value in settings.items()
        for name, inner in (value.items() if isinstance(value, dict) else [("", value)])
    }
    model = {"base model": of.base_name, "revision": of.revision or "none was pinned", "form": of.form}
    inputs = {"pixels": f"{of.min_pixels} to {of.max_pixels}", "longest input": f"{of.max_tokens} tokens"}
    inputs |= story.settings.model.model_dump(include={"encoding", "resize"}) if of.kind == "embedder" else {}
    last = {f"{name}, at the last step": f"{value:.6g}" for name, value in story.last.items() if name != "step"}
    return f"## Training\n\n{facts(model | inputs | {'dtype': of.dtype} | flat | last)}"


def _rows(story: Story) -> str:
    inputs = {f"fingerprint of {name}": value for name, value in story.begun.inputs.items()}
    if story.triples is None:
        gone = "The folder of the training rows is not there any more, or was written anew: all that is known of them:"
        return f"## Training data\n\n{gone}\n\n{facts(inputs)}"
    known = {"rows": story.triples.rows, "negatives stored": story.triples.negatives_in_row}
    chosen = {f"selection: {name}": value for name, value in without_places_in(story.triples.selection).items()}
    scales = {f"scale of judge {place}": scale for place, scale in enumerate(story.triples.scales, start=1)}
    counts = {name: f"{value:,.10g}" for name, value in story.triples.statistics.items()}
    return f"## Training data\n\n{facts(inputs | known | chosen | scales | counts)}"


def _measured(story: Story) -> str:
    tables = []
    for place, evaluation in story.evaluations:
        names = list(dict.fromkeys(name for measures in evaluation.subsets.values() for name in measures))
        rows = [
            [subset, *(f"{measures[name]:.4g}" if name in measures else "" for name in names)]
            for subset, measures in evaluation.subsets.items()
        ]
        of = without_places(evaluation.corpus)
        tables.append(f"{place}, of the corpus {of}:\n\n{table(['subset', *names], rows)}")
    return "\n\n".join(["## Measured", *tables]) if tables else ""


def _origin(story: Story) -> str:
    made = {"training": story.begun.made, "training rows": story.triples.made if story.triples else None}
    made |= {"export": Provenance.now()}
    lines = [f"* {name}: {made_by(by.published())}" for name, by in made.items() if by is not None]
    versions = ", ".join(f"{name} {version}" for name, version in story.environment.items())
    return "\n".join(["## Where it comes from", "", *lines, f"* trained with {versions}"])
