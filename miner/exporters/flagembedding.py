"""Exports for FlagEmbedding: JSON lines of query, pos, neg and, for a teacher, pos_scores and neg_scores. Texts only.

Rows with images are left out and counted. Duplicate negatives are not written, because the library itself draws and
repeats the negatives that it trains with. The library takes the softmax of undivided scores, so the exporter divides
them by the teacher's temperature.

Source: FlagOpen/FlagEmbedding, its embedder's dataset and model, version 1.4.
"""

from pathlib import Path
from typing import Any

from miner.exporters.training_rows import (
    AS_TIME,
    LeftOut,
    TrainingRow,
    TrainingRows,
    check_out,
    write_jsonl,
)

FLAGEMBEDDING_KEYS = ("query", "pos", "neg")
"""The keys of every row."""


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
        out: A file that ends in .jsonl. The library silently skips files with other endings.
        scores: Whether to write pos_scores and neg_scores.
        teacher_temperature: The divisor of the scores.
        extra_positives: Whether pos also holds the candidates that score at least as high as the positive.
        constants: Keys and values that are the same in every row, such as `prompt` and `type`.

    Raises:
        DataError: Every row has an image, a pair without a verdict needs a score, or `out` exists.
        SettingsError: `out` has a different ending.
    """
    check_out(out, ".jsonl")
    temperature = teacher_temperature if scores else None
    write_jsonl(
        out,
        rows.export(lambda row: _line(rows, row, temperature, extra_positives) | (constants or {})),
    )


def _line(
    rows: TrainingRows, row: TrainingRow, temperature: float | None, extra_positives: bool
) -> dict[str, Any]:
    positives = [row.positive]
    if extra_positives:
        positives += row.extra_positives
    negatives = row.distinct_negatives
    if row.query.image or any(candidate.item.image for candidate in (*positives, *negatives)):
        raise LeftOut("the row has an image, but FlagEmbedding trains on texts only")
    if row.holds_time():
        raise LeftOut(AS_TIME)

    line: dict[str, Any] = {"query": row.query.text}
    for name, candidates in (("pos", positives), ("neg", negatives)):
        line[name] = [candidate.item.text for candidate in candidates]
        if temperature is not None:
            line[f"{name}_scores"] = [
                rows.score(row, candidate) / temperature for candidate in candidates
            ]
    return line
