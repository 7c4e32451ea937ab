"""The commands of `unijudge mine export`, one for each layout."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unijudge.cli import Overwrite
from unijudge.storage.locations import locate

if TYPE_CHECKING:
    from miner.exporters.training_rows import TrainingRows

AS_THEY_ARE = "written with fewer negatives"
"""How most layouts write rows with fewer distinct negatives."""

exports = typer.Typer(
    help="Export a selection to the layouts of other trainers.", no_args_is_help=True
)

Triples = Annotated[
    Path, typer.Argument(help="The folder that `mine select` wrote.", parser=locate)
]
Out = Annotated[Path, typer.Argument(help="The file to write.", parser=locate)]
CorpusFolder = Annotated[
    Path, typer.Option(help="The corpus that the rows were selected from.", parser=locate)
]
ImageRoot = Annotated[
    str | None,
    typer.Option(
        help="The root of the image paths, instead of the corpus' root. '' keeps the paths relative."
    ),
]
SkipSuspects = Annotated[
    bool, typer.Option("--skip-suspects", help="Leave out rows with a suspect positive.")
]
MinRows = Annotated[
    int,
    typer.Option(
        min=1, help="Smallest number of rows. With fewer, nothing is written, and the status is 1."
    ),
]
NoScores = Annotated[bool, typer.Option("--no-scores", help="Leave out the judge's scores.")]
Negatives = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of negatives in every row. Rows with fewer distinct negatives are left out.",
    ),
]
ExtraPositives = Annotated[
    bool,
    typer.Option(
        "--extra-positives",
        help="Also export candidates that score at least as high as the positive, as positives.",
    ),
]


@exports.command("sentence-transformers")
def sentence_transformers(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    negatives: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of negatives in every row, by default as many as the selection stored. Rows with fewer "
            "distinct negatives are left out.",
        ),
    ] = None,
    no_scores: NoScores = False,
    image_root: ImageRoot = None,
    skip_suspects: SkipSuspects = False,
    min_rows: MinRows = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write a Parquet file: query, positive, negative_1 …, label (the judge's scores, the positive's first)."""
    from miner.exporters.existing_export import holds_table, replacing_export
    from miner.exporters.sentence_transformers import TABLE, export_sentence_transformers
    from miner.exporters.training_rows import TrainingRows

    rows = TrainingRows(
        triples, corpus, image_root=image_root, skip_suspects=skip_suspects, min_rows=min_rows
    )
    with replacing_export(out, lambda path: holds_table(path, TABLE), overwrite=overwrite) as place:
        export_sentence_transformers(rows, place, negatives=negatives, scores=not no_scores)
    _report(out, rows, negatives, option=True)


@exports.command("flagembedding")
def flagembedding(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    no_scores: NoScores = False,
    teacher_temperature: Annotated[
        float,
        typer.Option(
            min=1e-6,
            help="Divisor of the scores. The library takes the softmax of undivided scores.",
        ),
    ] = 1.0,
    extra_positives: ExtraPositives = False,
    prompt: Annotated[str | None, typer.Option(help="The `prompt` of every row.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="The `type` of every row.")] = None,
    skip_suspects: SkipSuspects = False,
    min_rows: MinRows = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write a JSONL file: query, pos, neg, pos_scores, neg_scores. Texts only."""
    from miner.exporters.existing_export import holds_rows, replacing_export
    from miner.exporters.flagembedding import FLAGEMBEDDING_KEYS, export_flagembedding
    from miner.exporters.training_rows import TrainingRows

    rows = TrainingRows(triples, corpus, skip_suspects=skip_suspects, min_rows=min_rows)
    constants = {
        name: value for name, value in (("prompt", prompt), ("type", kind)) if value is not None
    }
    with replacing_export(
        out, lambda path: holds_rows(path, FLAGEMBEDDING_KEYS), overwrite=overwrite
    ) as place:
        export_flagembedding(
            rows,
            place,
            scores=not no_scores,
            teacher_temperature=teacher_temperature,
            extra_positives=extra_positives,
            constants=constants,
        )
    _report(out, rows, short_rows=AS_THEY_ARE)


@exports.command("swift")
def swift(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    negatives: Negatives = None,
    image_root: ImageRoot = None,
    skip_suspects: SkipSuspects = False,
    min_rows: MinRows = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write a JSONL file for ms-swift: messages, positive_messages, negative_messages and their images."""
    from miner.exporters.existing_export import holds_rows, replacing_export
    from miner.exporters.swift import SWIFT_KEYS, export_swift
    from miner.exporters.training_rows import TrainingRows

    rows = TrainingRows(
        triples, corpus, image_root=image_root, skip_suspects=skip_suspects, min_rows=min_rows
    )
    with replacing_export(
        out, lambda path: holds_rows(path, SWIFT_KEYS), overwrite=overwrite
    ) as place:
        export_swift(rows, place, negatives=negatives)
    short_rows = AS_THEY_ARE if negatives is None else None
    _report(out, rows, negatives, short_rows=short_rows, option=True)


@exports.command("tevatron")
def tevatron(
    triples: Triples,
    out: Annotated[Path, typer.Argument(help="The folder to write.", parser=locate)],
    corpus: CorpusFolder,
    extra_positives: ExtraPositives = False,
    image_root: ImageRoot = None,
    skip_suspects: SkipSuspects = False,
    min_rows: MinRows = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write two folders of Parquet files: queries, whose rows refer to documents, and corpus."""
    from miner.exporters.tevatron import export_tevatron, is_tevatron
    from miner.exporters.training_rows import TrainingRows
    from unijudge.storage.outputs import replacing

    rows = TrainingRows(
        triples, corpus, image_root=image_root, skip_suspects=skip_suspects, min_rows=min_rows
    )
    with replacing(out, is_tevatron, "export for Tevatron", overwrite=overwrite) as place:
        export_tevatron(rows, place, extra_positives=extra_positives)
    _report(out, rows, short_rows=AS_THEY_ARE)


@exports.command("unime")
def unime(
    triples: Triples,
    out: Out,
    corpus: CorpusFolder,
    negatives: Annotated[
        int,
        typer.Option(
            min=1, help="Number of negatives in every row. Rows with fewer negatives are left out."
        ),
    ] = 10,
    skip_suspects: SkipSuspects = False,
    min_rows: MinRows = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write a JSON array in the layout of UniME-V2's released training data. Image paths stay relative."""
    from miner.exporters.existing_export import holds_array, replacing_export
    from miner.exporters.training_rows import TrainingRows
    from miner.exporters.unime import export_unime
    from miner.importers.unime import UNIME_KEYS

    rows = TrainingRows(triples, corpus, skip_suspects=skip_suspects, min_rows=min_rows)
    with replacing_export(
        out, lambda path: holds_array(path, UNIME_KEYS), overwrite=overwrite
    ) as place:
        export_unime(rows, place, negatives=negatives)
    _report(
        out,
        rows,
        negatives,
        short_rows="filled up with duplicates, as in the released file",
        option=True,
    )


def _report(
    out: Path,
    rows: "TrainingRows",
    negatives: int | None = None,
    *,
    short_rows: str | None = None,
    option: bool = False,
) -> None:
    """Prints how many rows were written and left out, and how many have too few distinct negatives.

    Args:
        out: The file or folder that was written.
        rows: The selection.
        negatives: The number of negatives in every row, as given by the user.
        short_rows: How rows with fewer distinct negatives were written; None if they were left out.
        option: Whether the command has `--negatives`.
    """
    from miner.selection.statistics import had_by_most

    typer.echo(f"{out}: {rows.written:,} rows written")
    for reason, left in rows.left_out.items():
        typer.echo(f"left out, {reason}: {left.rows:,}, the first is query {left.first!r}")
    if rows.weighted:
        typer.echo(
            f"weight below 1: {rows.weighted:,} rows, written without their weight, because no layout has one"
        )

    # Rows with fewer distinct negatives than wanted.
    wanted = negatives or rows.manifest.negatives_in_row
    total, short = rows.distinct.total(), rows.with_fewer(wanted)
    if not short:
        return
    if short_rows is not None:
        typer.echo(
            f"fewer than {wanted} distinct negatives: {short:,} of {total:,} rows, {short_rows}"
        )
    most = had_by_most(rows.distinct)
    if option and 0 < most < wanted:
        enough = total - rows.with_fewer(most)
        typer.echo(
            f"--negatives {most} would export {enough:,} of {total:,} rows without duplicates"
        )
