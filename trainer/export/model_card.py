"""The card of an exported model: README.md, with the front matter by which the Hugging Face hub shows it.

Everything on it comes from the run, from the manifests that the run names, and from evaluations that are given; nothing
is measured here. It names no path of the machine that exported it: the base of an adapter, where it is a folder, is to
be put beside.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.export.usage import ExportedModel, loading
from trainer.training.settings import EmbedderSettings, FinetuneSettings
from unijudge.formats.rankings import Evaluation
from unijudge.formats.triples import TripleManifest
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.pages.markdown import facts, made_by, rendered, table
from unijudge.provenance import Beginning, Provenance, without_places, without_places_in
from unijudge.settings import flattened

PAPER = "the method of UniME-V2, arXiv 2510.13515"
UNJUDGED = {"topk", "random", "cyclic"}
"""Presets of a selection that ask no judge."""
TEMPLATE = Path(__file__).parent / "model_card.md.jinja"


@dataclass(frozen=True)
class RunFacts:
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


def card(of: ExportedModel, run: RunFacts, *, tiled: bool, license: str | None) -> str:  # noqa: A002  what the hub calls it
    """The whole text.

    Args:
        of: What was exported.
        run: How it came to be.
        tiled: Whether the model's processor cuts pictures into tiles, and so has no budget of pixels.
        license: The hub's short form, if there is one.
    """
    text = rendered(
        TEMPLATE,
        of=of,
        run=run,
        license=license,
        tiled=tiled,
        base_on_the_hub=not Path(of.base).is_dir(),
        library=_library(of),
        how=_how(run),
        loading=loading(of),
        training=_training(of, run),
        rows=_rows(run),
        judges=[facts(judge) for judge in run.judges] if _is_judged(run) else [],
        measured=list(_measured(run)),
        origin=list(_origin(run)),
        versions=", ".join(f"{name} {version}" for name, version in run.environment.items()),
    )
    return f"{text}\n"


def _library(of: ExportedModel) -> str:
    """By what the hub says it is loaded: sentence-transformers, where the folder is one of its models."""
    is_one = of.pairs if of.kind == "reranker" else not of.bare
    return "sentence-transformers" if is_one else "transformers"


def _preset(run: RunFacts) -> str | None:
    """How the rows' negatives were chosen, where that is still known."""
    return run.triples.selection.get("preset") if run.triples else None


def _is_taught(run: RunFacts) -> bool:
    """Whether a judge's scores are in the loss; a reranker's say which negative is the hardest."""
    settings = run.settings
    return settings.loss.name != "infonce" if isinstance(settings, EmbedderSettings) else _preset(run) != "random"


def _is_judged(run: RunFacts) -> bool:
    """Whether a judge had a part in it: in the loss, or in what the rows are."""
    suspects = run.triples.selection.get("suspect_action", "keep") if run.triples else "keep"
    return _is_taught(run) or _preset(run) not in UNJUDGED or suspects != "keep"


def _how(run: RunFacts) -> str:
    """How it was trained, in a sentence: by its loss, and by what the manifest of its rows says."""
    settings, preset, how = run.settings, _preset(run), "Trained by unijudge"
    like_the_paper = preset is not None and preset not in UNJUDGED
    if isinstance(settings, EmbedderSettings):
        like_the_paper &= settings.loss.name == "symmetric_kl"
        agree = "so that its similarities agree with a multimodal LLM's judgements"
        how += f" {agree if _is_taught(run) else 'contrastively, from labels alone'}"
    if preset is not None:
        unjudged = f"negatives that the selection `{preset}` took without a judge"
        how += f", on {unjudged if preset in UNJUDGED else 'hard negatives that a multimodal LLM judged'}"
    return f"{how} ({PAPER})." if like_the_paper else f"{how}."


def _training(of: ExportedModel, run: RunFacts) -> str:
    model = {"base model": of.base_name, "revision": of.revision or "none was pinned", "form": of.form}
    inputs = {"pixels": f"{of.min_pixels} to {of.max_pixels}", "longest input": f"{of.max_tokens} tokens"}
    if of.kind == "embedder":
        inputs |= run.settings.model.model_dump(include={"encoding", "resize"})
    settings = run.settings.model_dump(mode="json", exclude={"corpus", "triples", "out", "model"})
    last = {f"{name}, at the last step": f"{value:.6g}" for name, value in run.last.items() if name != "step"}
    return facts(model | inputs | {"dtype": of.dtype} | dict(flattened(settings)) | last)


def _rows(run: RunFacts) -> str:
    inputs = {f"fingerprint of {name}": value for name, value in run.begun.inputs.items()}
    if run.triples is None:
        return facts(inputs)
    known = {"rows": run.triples.rows, "negatives stored": run.triples.negatives_in_row}
    chosen = {f"selection: {name}": value for name, value in without_places_in(run.triples.selection).items()}
    scales = {f"scale of judge {place}": scale for place, scale in enumerate(run.triples.scales, start=1)}
    counts = {name: f"{value:,.10g}" for name, value in run.triples.statistics.items()}
    return facts(inputs | known | chosen | scales | counts)


def _measured(run: RunFacts) -> Iterator[tuple[str, str, str]]:
    """Of each evaluation: its folder, its corpus, and a table of its measures by subset."""
    for place, evaluation in run.evaluations:
        names = list(dict.fromkeys(name for measures in evaluation.subsets.values() for name in measures))
        rows = []
        for subset, measures in evaluation.subsets.items():
            values = [f"{measures[name]:.4g}" if name in measures else "" for name in names]
            rows.append([subset, *values])
        yield place, without_places(evaluation.corpus), table(["subset", *names], rows)


def _origin(run: RunFacts) -> Iterator[tuple[str, str]]:
    """What was made on the way, and the command that made it."""
    made = {"training": run.begun.made, "training rows": run.triples.made if run.triples else None}
    made |= {"export": Provenance.now()}
    for name, by in made.items():
        if by is not None:
            yield name, made_by(by.published())
