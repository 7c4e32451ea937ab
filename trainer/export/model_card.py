"""The card of an exported model: README.md, with the front matter for the Hugging Face hub.

The content of the card comes from the run, from the manifests that the run names, and from the given evaluations. This
module measures nothing. The card names no path of the exporting machine. If the base model of an adapter is a folder,
the card gives only its name, and the reader must put this folder next to the code.
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
"""The presets of a selection that use no judge."""
TEMPLATE = Path(__file__).parent / "model_card.md.jinja"


@dataclass(frozen=True)
class RunFacts:
    """The facts about a run that the card shows."""

    settings: FinetuneSettings
    begun: Beginning
    environment: Mapping[str, str]
    last: Mapping[str, float]
    """The metrics of the last step."""
    triples: TripleManifest | None
    """The manifest of the training rows, or None if the rows no longer exist or have changed."""
    judges: Sequence[JudgeIdentity]
    """The judges that scored the training rows, if their score folders can still be read."""
    evaluations: Sequence[tuple[str, Evaluation]]
    """The name and the measures of each evaluation folder."""
    agreement: str = ""
    """The sentence that compares the exported numbers with the numbers of the run."""


def card(of: ExportedModel, run: RunFacts, *, tiled: bool, license: str | None) -> str:  # noqa: A002  the hub's name
    """Returns the text of the card.

    Args:
        of: The exported model.
        run: The facts about the run.
        tiled: Whether the model's processor cuts images into tiles and therefore has no limits of pixels.
        license: The licence in the short form of the hub, or None.
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
    """Returns the library on the hub: sentence-transformers if the library can load the folder, else transformers."""
    is_supported = of.pairs if of.kind == "reranker" else not of.bare
    return "sentence-transformers" if is_supported else "transformers"


def _preset(run: RunFacts) -> str | None:
    """Returns the preset that chose the negatives, or None if the preset is unknown."""
    return run.triples.selection.get("preset") if run.triples else None


def _is_taught(run: RunFacts) -> bool:
    """Returns whether the loss uses a judge's scores. For a reranker, scores determine the hardest negative."""
    settings = run.settings
    if isinstance(settings, EmbedderSettings):
        return settings.loss.name != "infonce"
    return _preset(run) != "random"


def _is_judged(run: RunFacts) -> bool:
    """Returns whether a judge influenced the training, through the loss or through the selection of rows."""
    suspects = run.triples.selection.get("suspect_action", "keep") if run.triples else "keep"
    return _is_taught(run) or _preset(run) not in UNJUDGED or suspects != "keep"


def _how(run: RunFacts) -> str:
    """Returns a sentence about the training, from the loss and from the manifest of the rows."""
    settings = run.settings
    preset = _preset(run)
    like_the_paper = preset is not None and preset not in UNJUDGED
    how = "Trained by unijudge"
    if isinstance(settings, EmbedderSettings):
        like_the_paper &= settings.loss.name == "symmetric_kl"
        if _is_taught(run):
            how += " so that its similarities agree with a multimodal LLM's judgements"
        else:
            how += " contrastively, from labels alone"

    if preset in UNJUDGED:
        how += f", on negatives that the selection `{preset}` chose without a judge"
    elif preset is not None:
        how += ", on hard negatives judged by a multimodal LLM"

    return f"{how} ({PAPER})." if like_the_paper else f"{how}."


def _training(of: ExportedModel, run: RunFacts) -> str:
    model = {"base model": of.base_name, "revision": of.revision or "not pinned", "form": of.form}
    inputs = {
        "pixels": f"{of.min_pixels} to {of.max_pixels}",
        "longest input": f"{of.max_tokens} tokens",
    }
    if of.kind == "embedder":
        inputs |= run.settings.model.model_dump(include={"encoding", "resize"})
    settings = run.settings.model_dump(mode="json", exclude={"corpus", "triples", "out", "model"})
    last = {
        f"{name}, at the last step": f"{value:.6g}"
        for name, value in run.last.items()
        if name != "step"
    }
    return facts(model | inputs | {"dtype": of.dtype} | dict(flattened(settings)) | last)


def _rows(run: RunFacts) -> str:
    inputs = {f"fingerprint of {name}": value for name, value in run.begun.inputs.items()}
    if run.triples is None:
        return facts(inputs)
    known = {"rows": run.triples.rows, "negatives stored": run.triples.negatives_in_row}
    chosen = {
        f"selection: {name}": value
        for name, value in without_places_in(run.triples.selection).items()
    }
    scales = {
        f"scale of judge {number}": scale
        for number, scale in enumerate(run.triples.scales, start=1)
    }
    counts = {name: f"{value:,.10g}" for name, value in run.triples.statistics.items()}
    return facts(inputs | known | chosen | scales | counts)


def _measured(run: RunFacts) -> Iterator[tuple[str, str, str]]:
    """Yields the folder, the corpus and the table of measures by subset of each evaluation."""
    for folder, evaluation in run.evaluations:
        names: dict[str, None] = {}
        for measures in evaluation.subsets.values():
            names |= dict.fromkeys(measures)

        rows = []
        for subset, measures in evaluation.subsets.items():
            values = [f"{measures[name]:.4g}" if name in measures else "" for name in names]
            rows.append([subset, *values])
        yield folder, without_places(evaluation.corpus), table(["subset", *names], rows)


def _origin(run: RunFacts) -> Iterator[tuple[str, str]]:
    """Yields each artefact of the run with the command that made it."""
    made = {"training": run.begun.made, "training rows": run.triples.made if run.triples else None}
    made |= {"export": Provenance.now()}
    for name, by in made.items():
        if by is not None:
            yield name, made_by(by.published())
