"""Fits a judge's calibration to labelled pairs of a score folder, and says what it is worth."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from miner.calibration.settings import CalibrateSettings
from miner.inspection.labels import read_label_file
from miner.selection.platt import Bools, Calibration, Measures, chances, cross_validated, fit_calibration, measures
from unijudge.errors import DataError
from unijudge.foreign.cells import truth_of
from unijudge.foreign.tables import read_rows
from unijudge.formats.scores import ScoreManifest, read_scores
from unijudge.shown import shown
from unijudge.storage.files import publish_json, read_json
from unijudge.storage.outputs import check_file, is_json_of

logger = logging.getLogger(__name__)

Labels = dict[str, dict[str, bool]]
"""query_id → item_id → whether it matches."""


def calibrate(settings: CalibrateSettings) -> Calibration:
    """Writes the calibration of a folder's judge, and returns it.

    Raises:
        DataError: The labels cannot be read or are not of these scores, are too few or of one class, or say that the
            judge's scores fall where pairs match; or `out` is something else than a calibration.
    """
    check_file(settings.out, is_json_of(Calibration), "calibration")
    manifest = read_json(settings.scores / "manifest.json", ScoreManifest)
    labels = read_labels(settings.labels, manifest)
    pairs = list(_joined(settings, labels))
    judged = [(log_odds, match) for log_odds, match in pairs if log_odds is not None]
    log_odds_N = np.array([log_odds for log_odds, _ in judged])
    matches_N = np.array([match for _, match in judged], bool)
    fewest = _check(settings, matches_N)
    slope, intercept = fit_calibration(log_odds_N, matches_N, settings.kind)
    if slope <= 0:
        raise DataError(
            f"{settings.labels}: pairs that match have the lower scores (fitted slope {slope:.3g}); are the labels of "
            f"these scores, and is 1 a match? If so, this judge ({manifest.judge}) cannot be calibrated"
        )
    folds = min(settings.folds, fewest)
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
            "%s: on pairs that it was not fitted to, scores are worse with it than without (%s); label more pairs, try "
            "the other `kind`, or do without it",
            settings.out, " and ".join(worse),
        )  # fmt: skip
    return made


def read_labels(path: Path, manifest: ScoreManifest) -> Labels:
    """Labelled pairs: the labels of a page's random sample (.json), or rows of query_id, item_id, match.

    Raises:
        DataError: The file cannot be read, holds overrides, is of another corpus or judge, says no clear match, or two
            things about one pair.
    """
    labels: Labels = {}
    for place, query_id, item_id, match in _sampled(path, manifest) if path.suffix == ".json" else _rows(path):
        if labels.setdefault(query_id, {}).setdefault(item_id, match) != match:
            raise DataError(
                f"{place}: query {query_id!r}, item {item_id!r} is both a match and none; leave one of the two"
            )
    return labels


def _sampled(path: Path, manifest: ScoreManifest) -> Iterator[tuple[str, str, str, bool]]:
    read = read_label_file(path, manifest.corpus)
    if read.judge != manifest.judge.digest:
        raise DataError(
            f"{path}: its sample was drawn from the scores of judge {read.judge}, evenly over them; these are of "
            f"{manifest.judge}. Label a sample of these scores (`mine inspect`)"
        )
    if len(read.labels) < read.sampled:
        logger.warning(
            "%s: %d of the %d sampled pairs have a label; if the others were passed over because they are hard, the "
            "fit is biased. Label them too",
            path, len(read.labels), read.sampled,
        )  # fmt: skip
    for one in read.labels:
        yield str(path), one.query_id, one.item_id, one.match


def _rows(path: Path) -> Iterator[tuple[str, str, str, bool]]:
    for number, row in read_rows(path):
        place, match = f"{path}:{number}", truth_of(row.get("match"))
        if match is None or not all(isinstance(row.get(name), str) for name in ("query_id", "item_id")):
            raise DataError(f"{place}: expected query_id and item_id, strings, and match, 0 or 1; found {shown(row)}")
        yield place, row["query_id"], row["item_id"], match


def _joined(settings: CalibrateSettings, labels: Labels) -> Iterator[tuple[float | None, bool]]:
    """The log-odds and the label of every labelled pair."""
    left = {(query_id, item_id) for query_id, items in labels.items() for item_id in items}
    for query in read_scores(settings.scores, partial=settings.partial):
        labelled = labels.get(query.query_id, {})
        for one in (*query.positives, *query.candidates) if labelled else ():
            if one.item_id in labelled:
                left.discard((query.query_id, one.item_id))
                yield one.log_odds, labelled[one.item_id]
    if left and not settings.partial:
        query_id, item_id = min(left)
        raise DataError(
            f"{settings.labels}: {len(left)} labelled pairs are not among the scores of {settings.scores} (first: "
            f"query {query_id!r}, item {item_id!r}); label pairs that were scored"
        )


def _check(settings: CalibrateSettings, matches_N: Bools) -> int:
    """The size of the smaller class."""
    matches, negatives = int(matches_N.sum()), int((~matches_N).sum())
    if matches + negatives < settings.min_labels:
        raise DataError(
            f"{settings.labels}: {matches + negatives} labelled pairs with a verdict, fewer than min_labels = "
            f"{settings.min_labels}; label more, best of all kinds of scores"
        )
    if min(matches, negatives) < 2:
        raise DataError(
            f"{settings.labels}: {matches} pairs match and {negatives} do not; a fit needs at least two of each: label "
            "some of the other kind"
        )
    return min(matches, negatives)
