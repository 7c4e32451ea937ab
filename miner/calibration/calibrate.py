"""Fits a judge's calibration to labelled pairs of a score folder, and measures the calibration."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from miner.calibration.settings import CalibrateSettings
from miner.inspection.labels import read_label_file
from miner.selection.platt import (
    Bools,
    Calibration,
    Measures,
    chances,
    cross_validated,
    fit_calibration,
    measures,
)
from unijudge.errors import DataError
from unijudge.foreign.cells import truth_of
from unijudge.foreign.tables import read_rows
from unijudge.formats.scores import ScoreManifest, read_scores
from unijudge.shown import shown
from unijudge.storage.files import publish_json, read_json
from unijudge.storage.outputs import check_file, is_json_of

logger = logging.getLogger(__name__)

Labels = dict[str, dict[str, bool]]
"""query_id → item_id → whether the item is a match."""


def calibrate(settings: CalibrateSettings) -> Calibration:
    """Writes and returns the calibration of a folder's judge.

    Raises:
        DataError: The labels cannot be read, belong to other scores, are too few or all the same, or matches have lower
            scores than negatives; or `out` exists and is no calibration.
    """
    check_file(settings.out, is_json_of(Calibration), "calibration")
    manifest = read_json(settings.scores / "manifest.json", ScoreManifest)
    labels = read_labels(settings.labels, manifest)

    # Pairs without a verdict are left out.
    pairs = list(_joined(settings, labels))
    judged = [(log_odds, match) for log_odds, match in pairs if log_odds is not None]
    log_odds_N = np.array([log_odds for log_odds, _ in judged])
    matches_N = np.array([match for _, match in judged], bool)
    smaller_class = _check(settings, matches_N)

    slope, intercept = fit_calibration(log_odds_N, matches_N, settings.kind)
    if slope <= 0:
        raise DataError(
            f"{settings.labels}: pairs that match have lower scores than pairs that do not (fitted slope {slope:.3g}). "
            "Check that the labels belong to these scores and that 1 means a match. If so, this judge "
            f"({manifest.judge}) cannot be calibrated"
        )

    # The measures come from pairs that each fit did not see. Every fold needs both labels.
    folds = min(settings.folds, smaller_class)
    held_out_N = cross_validated(log_odds_N, matches_N, settings.kind, folds, settings.seed)
    made = Calibration(
        judge=manifest.judge.digest,
        kind=settings.kind,
        slope=slope,
        intercept=intercept,
        matches=int(matches_N.sum()),
        negatives=int((~matches_N).sum()),
        without_verdict=len(pairs) - len(judged),
        before=measures(chances(log_odds_N), matches_N),
        after=measures(held_out_N, matches_N),
        folds=folds,
    )
    publish_json(settings.out, made)
    if worse := [name.replace("_", " ") for name in Measures.model_fields if made.gain(name) < 0]:
        logger.warning(
            "%s: the calibration makes the scores of held-out pairs worse (%s). Label more pairs, try the other `kind` "
            "or select without a calibration",
            settings.out, " and ".join(worse),
        )  # fmt: skip
    return made


def read_labels(path: Path, manifest: ScoreManifest) -> Labels:
    """Reads labelled pairs: the labels that a page exported (.json), or rows of query_id, item_id and match.

    Raises:
        DataError: The file cannot be read, holds overrides, belongs to a different corpus or judge, has an invalid
            label, or contradicts itself about a pair.
    """
    rows = _sampled(path, manifest) if path.suffix == ".json" else _rows(path)
    labels: Labels = {}
    for place, query_id, item_id, match in rows:
        if labels.setdefault(query_id, {}).setdefault(item_id, match) != match:
            raise DataError(
                f"{place}: query {query_id!r}, item {item_id!r} is labelled both as a match and as a negative. Remove "
                "one of these two labels"
            )
    return labels


def _sampled(path: Path, manifest: ScoreManifest) -> Iterator[tuple[str, str, str, bool]]:
    """Yields the labels of a page's random sample, each with its place for messages."""
    read = read_label_file(path, manifest.corpus)
    if read.judge != manifest.judge.digest:
        raise DataError(
            f"{path}: its sample was drawn evenly over the scores of judge {read.judge}, but these scores are of "
            f"{manifest.judge}. Label a sample of these scores (`mine inspect`)"
        )
    if len(read.labels) < read.sampled:
        logger.warning(
            "%s: %d of the %d sampled pairs have a label. If the other pairs were skipped because they are hard, the "
            "fit is biased. Label these pairs too",
            path, len(read.labels), read.sampled,
        )  # fmt: skip
    for label in read.labels:
        yield str(path), label.query_id, label.item_id, label.match


def _rows(path: Path) -> Iterator[tuple[str, str, str, bool]]:
    """Yields the labels of a table, each with its place for messages."""
    for number, row in read_rows(path):
        place, match = f"{path}:{number}", truth_of(row.get("match"))
        if match is None or not all(
            isinstance(row.get(name), str) for name in ("query_id", "item_id")
        ):
            raise DataError(
                f"{place}: expected the strings query_id and item_id, and match as 0 or 1, but found {shown(row)}. "
                "Correct this row"
            )
        yield place, row["query_id"], row["item_id"], match


def _joined(settings: CalibrateSettings, labels: Labels) -> Iterator[tuple[float | None, bool]]:
    """Yields the log-odds and the label of every labelled pair."""
    unscored = {(query_id, item_id) for query_id, items in labels.items() for item_id in items}
    for query in read_scores(settings.scores, partial=settings.partial):
        label_of = labels.get(query.query_id)
        if label_of is None:
            continue
        for judged in (*query.positives, *query.candidates):
            if judged.item_id in label_of:
                unscored.discard((query.query_id, judged.item_id))
                yield judged.log_odds, label_of[judged.item_id]

    if unscored and not settings.partial:
        query_id, item_id = min(unscored)
        raise DataError(
            f"{settings.labels}: {len(unscored)} labelled pairs are not among the scores of {settings.scores} (first: "
            f"query {query_id!r}, item {item_id!r}). Label pairs that were scored"
        )


def _check(settings: CalibrateSettings, matches_N: Bools) -> int:
    """Checks that there are enough labels of both kinds. Returns the number of labels of the rarer kind."""
    matches, negatives = int(matches_N.sum()), int((~matches_N).sum())
    if matches + negatives < settings.min_labels:
        raise DataError(
            f"{settings.labels}: has {matches + negatives} labelled pairs with a verdict, fewer than min_labels = "
            f"{settings.min_labels}. Label more pairs, of low and high scores"
        )
    if min(matches, negatives) < 2:
        raise DataError(
            f"{settings.labels}: {matches} pairs match and {negatives} do not, but a fit needs at least two of each. "
            "Label more pairs of the rarer kind"
        )
    return min(matches, negatives)
