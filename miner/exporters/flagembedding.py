"""FlagEmbedding: JSON lines of query, pos, neg and, for a teacher, pos_scores and neg_scores. Texts only.

A row with an image is left out, and counted. A negative that only fills its row up is written once: the library draws
as many as it trains with, and repeats by itself. It takes the softmax of the scores as they are, so a temperature of
the teacher has to be in them.

Source: FlagOpen/FlagEmbedding, its embedder's dataset and model, version 1.4.
"""

from pathlib import Path
from typing import Any

from miner.exporters.training_rows import AS_TIME, LeftOut, TrainingRow, TrainingRows, check_out, write_jsonl

FLAGEMBEDDING_KEYS = ("query", "pos", "neg")
"""What every row has."""


def export_flagembedding(
    rows: TrainingRows,
    out: Path,
    *,
    scores: bool = True,
    teacher_temperature: float = 1.0,
    extra_positives: bool = False,
    constants: dict[str, str] | None = None,
) -> None:
    """Writes one JSONL file.

    Args:
        rows: The selection.
        out: Ends in .jsonl: the library passes over files of other endings without a word.
        scores: Whether to write pos_scores and neg_scores.
        teacher_temperature: Divides them.
        extra_positives: Whether pos also holds the candidates that the judge finds as good as the positive.
        constants: Keys that every row has alike, such as `prompt` and `type`.

    Raises:
        DataError: Every row has an image, a score is wanted of a pair without verdict, or `out` exists.
        SettingsError: Another ending.
    """
    check_out(out, ".jsonl")
    temperature = teacher_temperature if scores else None
    write_jsonl(out, rows.export(lambda row: _line(rows, row, temperature, extra_positives) | (constants or {})))


def _line(rows: TrainingRows, row: TrainingRow, temperature: float | None, extra_positives: bool) -> dict[str, Any]:
    lists = {"pos": [row.positive, *(row.extra_positives if extra_positives else [])], "neg": row.distinct_negatives}
    if row.query.image or any(one.item.image for candidates in lists.values() for one in candidates):
        raise LeftOut("an image is in the row, and FlagEmbedding trains on texts only")
    if row.holds_time():
        raise LeftOut(AS_TIME)
    line: dict[str, Any] = {"query": row.query.text}
    for name, candidates in lists.items():
        line[name] = [one.item.text for one in candidates]
        if temperature is not None:
            line[f"{name}_scores"] = [rows.score(row, one) / temperature for one in candidates]
    return line
