"""`unijudge mine export`: one command for each layout."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unijudge.cli import Overwrite
from unijudge.storage.locations import locate

if TYPE_CHECKING:
    from miner.exporters.training_rows import TrainingRows

exports = typer.Typer(help="A selection into the layouts of other trainers.", no_args_is_help=True)

Triples = Annotated[Path, typer.Argument(help="The folder that `mine select` wrote.", parser=locate)]
Out = Annotated[Path, typer.Argument(help="The file to write.", parser=locate)]
CorpusFolder = Annotated[Path, typer.Option(help="The corpus that the rows were selected from.", parser=locate)]
ImageRoot = Annotated[
    str | None,
    typer.Option(help="What image paths begin with in the place of the corpus' own root; '' leaves them relative."),
]
SkipSuspects = Annotated[bool, typer.Option("--skip-suspects", help="Leave out rows with a suspect positive.")]
NoScores = Annotated[bool, typer.Option("--no-scores", help="Leave out the judge's scores.")]
Negatives = Annotated[int | None, typer.Option(min=1, help="In every row; a row with fewer distinct ones is left out.")]
ExtraPositives = Annotated[
    bool, typer.Option("--extra-positives", help="Also take the candidates that the judge finds as good.")
]


@exports.command("sentence-transformers")
def sentence_transformers(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    negatives: Annotated[
        int | None, typer.Option(min=1, help="In every row, fewer are left out; default: as many as are stored.")
    ] = None,
    no_scores: NoScores = False,
    image_root: ImageRoot = None,
    skip_suspects: SkipSuspects = False,
    overwrite: Overwrite = False,
) -> None:
    """Parquet: query, positive, negative_1 …, label (the judge's scores, positive first)."""
    from miner.exporters.existing_export import holds_table, replacing_export
    from miner.exporters.sentence_transformers import TABLE, export_sentence_transformers
    from miner.exporters.training_rows import TrainingRows

    rows = TrainingRows(triples, corpus, image_root=image_root, skip_suspects=skip_suspects)
    with replacing_export(out, lambda path: holds_table(path, TABLE), overwrite=overwrite) as place:
        export_sentence_transformers(rows, place, negatives=negatives, scores=not no_scores)
    _tell(out, rows, negatives, option=True)


@exports.command("flagembedding")
def flagembedding(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    no_scores: NoScores = False,
    teacher_temperature: Annotated[
        float, typer.Option(min=1e-6, help="Divides the scores: the library takes their softmax as they are.")
    ] = 1.0,
    extra_positives: ExtraPositives = False,
    prompt: Annotated[str | None, typer.Option(help="The `prompt` of every row.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="The `type` of every row.")] = None,
    skip_suspects: SkipSuspects = False,
    overwrite: Overwrite = False,
) -> None:
    """JSONL: query, pos, neg, pos_scores, neg_scores. Texts only."""
    from miner.exporters.existing_export import holds_rows, replacing_export
    from miner.exporters.flagembedding import FLAGEMBEDDING_KEYS, export_flagembedding
    from miner.exporters.training_rows import TrainingRows

    rows = TrainingRows(triples, corpus, skip_suspects=skip_suspects)
    constants = {name: value for name, value in (("prompt", prompt), ("type", kind)) if value is not None}
    with replacing_export(out, lambda path: holds_rows(path, FLAGEMBEDDING_KEYS), overwrite=overwrite) as place:
        export_flagembedding(
            rows,
            place,
            scores=not no_scores,
            teacher_temperature=teacher_temperature,
            extra_positives=extra_positives,
            constants=constants,
        )
    _tell(out, rows, fate="written with those that they have")


@exports.command("swift")
def swift(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    negatives: Negatives = None,
    image_root: ImageRoot = None,
    skip_suspects: SkipSuspects = False,
    overwrite: Overwrite = False,
) -> None:
    """JSONL of ms-swift: messages, positive_messages, negative_messages, and their images."""
    from miner.exporters.existing_export import holds_rows, replacing_export
    from miner.exporters.swift import SWIFT_KEYS, export_swift
    from miner.exporters.training_rows import TrainingRows

    rows = TrainingRows(triples, corpus, image_root=image_root, skip_suspects=skip_suspects)
    with replacing_export(out, lambda path: holds_rows(path, SWIFT_KEYS), overwrite=overwrite) as place:
        export_swift(rows, place, negatives=negatives)
    fate = "written with those that they have" if negatives is None else None
    _tell(out, rows, negatives, fate=fate, option=True)


@exports.command("tevatron")
def tevatron(
    triples: Triples,
    out: Annotated[Path, typer.Argument(help="The folder to write.", parser=locate)],
    corpus: CorpusFolder,
    extra_positives: ExtraPositives = False,
    image_root: ImageRoot = None,
    skip_suspects: SkipSuspects = False,
    overwrite: Overwrite = False,
) -> None:
    """Two folders of Parquet: queries, whose rows name documents, and corpus."""
    from miner.exporters.tevatron import export_tevatron, is_tevatron
    from miner.exporters.training_rows import TrainingRows
    from unijudge.storage.outputs import replacing

    rows = TrainingRows(triples, corpus, image_root=image_root, skip_suspects=skip_suspects)
    with replacing(out, is_tevatron, "export for Tevatron", overwrite=overwrite) as place:
        export_tevatron(rows, place, extra_positives=extra_positives)
    _tell(out, rows, fate="written with those that they have")


@exports.command("unime")
def unime(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    negatives: Annotated[int, typer.Option(min=1, help="In every row, fewer are left out.")] = 10,
    skip_suspects: SkipSuspects = False,
    overwrite: Overwrite = False,
) -> None:
    """One JSON array in the layout of UniME-V2's released training data; image paths stay relative."""
    from miner.exporters.existing_export import holds_array, replacing_export
    from miner.exporters.training_rows import TrainingRows
    from miner.exporters.unime import export_unime
    from miner.importers.unime import UNIME_KEYS

    rows = TrainingRows(triples, corpus, skip_suspects=skip_suspects)
    with replacing_export(out, lambda path: holds_array(path, UNIME_KEYS), overwrite=overwrite) as place:
        export_unime(rows, place, negatives=negatives)
    _tell(out, rows, negatives, fate="filled up with repeated ones, as the released file is", option=True)


def _tell(
    out: Path, rows: "TrainingRows", negatives: int | None = None, *, fate: str | None = None, option: bool = False
) -> None:
    """Says what was written, what was not, and which rows are short.

    Args:
        out: What was written.
        rows: The selection.
        negatives: Of every row, as the person asked.
        fate: What became of rows with fewer distinct negatives; None where they are among those left out.
        option: Whether the command has `--negatives`.
    """
    from miner.selection.statistics import had_by_most

    typer.echo(f"{out}: {rows.written:,} rows written")
    for reason, left in rows.left_out.items():
        typer.echo(f"left out, {reason}: {left.rows:,}, the first is query {left.first!r}")
    if rows.weighted:
        typer.echo(f"weight below 1, which no layout can say: {rows.weighted:,}, written as whole rows")
    wanted, total = negatives or rows.manifest.negatives_in_row, rows.distinct.total()
    short, most = rows.with_fewer(wanted), had_by_most(rows.distinct)
    if not short:
        return
    if fate is not None:
        typer.echo(f"fewer than {wanted} distinct negatives: {short:,} of {total:,} rows, {fate}")
    if option and 0 < most < wanted:
        typer.echo(f"--negatives {most} would take {total - rows.with_fewer(most):,} of {total:,} rows without repeats")
