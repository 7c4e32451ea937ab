"""Turns a judge's log-odds into probabilities with a slope and an intercept, fitted to labelled pairs. Pure.

The fit is Platt's maximum likelihood fit by Newton's method with backtracking. Platt's smoothed targets keep the fit
finite even if the labels can be separated. A calibration does not change the order of a judge's scores, so it cannot
fix a wrong order. `mine calibrate` rejects a slope that is not positive.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from unijudge.errors import DataError
from unijudge.formats.scores import ScoreManifest
from unijudge.formats.triples import Scale
from unijudge.metrics import calibration_error
from unijudge.storage.files import read_json

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
CalibrationKind = Literal["temperature", "platt"]
RIDGE = 1e-6
"""Strength of the ridge penalty on slope and intercept. It decides only if the data do not determine them."""


class Measures(BaseModel):
    """The distance between scores and true probabilities, measured on labelled pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_loss: float
    """Mean −ln of the probability that the score gives to the true label, in nats."""
    calibration_error: float
    """Expected calibration error over ten bins, in [0, 1]."""


class Calibration(BaseModel):
    """The file calibration.json: one judge's slope and intercept, and the labelled pairs they were fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    judge: str
    """The digest of the judge's identity."""
    kind: CalibrationKind
    slope: float
    intercept: float
    matches: int
    """Number of labelled pairs that match."""
    negatives: int
    """Number of labelled pairs that do not match."""
    without_verdict: int
    """Number of labelled pairs that were left out, because they have no verdict of the judge."""
    before: Measures
    """The measures of the uncalibrated scores."""
    after: Measures
    """The measures of the calibrated scores, by cross-validation."""
    folds: int
    """Number of folds of the cross-validation."""

    def gain(self, name: str) -> float:
        """Returns the decrease of a measure. A negative decrease means that the calibration makes the measure worse."""
        return float(getattr(self.before, name) - getattr(self.after, name))

    @property
    def scale(self) -> Scale:
        """The scale that turns log-odds into calibrated scores."""
        return Scale(slope=self.slope, intercept=self.intercept)


def read_calibration(path: Path) -> Calibration:
    """Reads a file that `mine calibrate` wrote.

    Raises:
        DataError: The file does not exist or is no calibration.
    """
    return read_json(path, Calibration)


def calibration_of(manifests: Sequence[ScoreManifest], files: Sequence[Path]) -> list[Scale | None]:
    """Returns the fitted scale of each folder's judge, or None for a judge without a calibration file.

    Raises:
        DataError: A file cannot be read, belongs to a judge that scored none of these folders, or two files belong to
            the same judge.
    """
    digests = [manifest.judge.digest for manifest in manifests]
    fitted: dict[str, Scale] = {}
    for path in files:
        read = read_calibration(path)
        if read.judge not in digests or read.judge in fitted:
            judges = " and ".join(str(manifest.judge) for manifest in manifests)
            raise DataError(
                f"{path}: was fitted to judge {read.judge}, but the scores are of {judges}. Give one calibration for "
                "each judge, made by `mine calibrate` on these scores"
            )
        fitted[read.judge] = read.scale
    return [fitted.get(digest) for digest in digests]


def fit_calibration(
    log_odds_N: Floats, matches_N: Bools, kind: CalibrationKind
) -> tuple[float, float]:
    """Fits the slope a and the intercept b that make the labels most likely.

        P(match) = sigmoid(a · log_odds + b),   b = 0 for `temperature`,

    Instead of 1 and 0, the targets are Platt's (N₊ + 1) / (N₊ + 2) for matches and 1 / (N₋ + 2) for negatives.

    Args:
        log_odds_N: The log-odds of labelled pairs.
        matches_N: Whether each pair is a match.
        kind: `temperature` or `platt`.

    Returns:
        The slope and the intercept.

    Source:
        Platt, "Probabilistic outputs for support vector machines", 1999; the Newton method with backtracking is Lin,
        Lin and Weng's, "A note on Platt's probabilistic outputs for support vector machines", Machine Learning 68,
        2007. Guo et al., "On calibration of modern neural networks", ICML 2017, for the temperature alone.

    Example:
        >>> log_odds = np.array([-2.0, -2.0, -2.0, 2.0, 2.0, 2.0])
        >>> slope, _ = fit_calibration(log_odds, np.array([0, 0, 1, 1, 1, 0], bool), "temperature")
        >>> round(slope, 3)  # the targets, .8 and .2, have the means .4 at −2 and .6 at 2: ln(.6 / .4) / 2
        0.203
    """
    num_matches = int(matches_N.sum())
    num_negatives = len(matches_N) - num_matches
    match_target = (num_matches + 1) / (num_matches + 2)
    negative_target = 1 / (num_negatives + 2)
    targets_N = np.where(matches_N, match_target, negative_target)

    # The features are the log-odds and, for `platt`, a constant for the intercept.
    features_NF = log_odds_N[:, None]
    if kind == "platt":
        features_NF = np.stack([log_odds_N, np.ones_like(log_odds_N)], 1)
    weights_F = np.zeros(features_NF.shape[1])

    # Newton's method: the step solves curvature · step = gradient.
    for _ in range(100):
        chances_N = chances(features_NF @ weights_F)
        gradient_F = features_NF.T @ (chances_N - targets_N) + RIDGE * weights_F
        if np.abs(gradient_F).max() < 1e-8 * len(targets_N):
            break
        variances_N = chances_N * (1 - chances_N)
        curvature_FF = (features_NF * variances_N[:, None]).T @ features_NF
        ridge_FF = RIDGE * np.eye(len(weights_F))
        step_F = np.linalg.solve(curvature_FF + ridge_FF, gradient_F)
        weights_F = _backtracked(features_NF, targets_N, weights_F, step_F)

    slope = float(weights_F[0])
    intercept = float(weights_F[1]) if kind == "platt" else 0.0
    return slope, intercept


def cross_validated(
    log_odds_N: Floats, matches_N: Bools, kind: CalibrationKind, folds: int, seed: int
) -> Floats:
    """Returns the probability of each pair by a fit to the other folds. Each fold has its share of both labels."""
    dice = np.random.default_rng(seed)
    fold_N = np.empty(len(matches_N), int)
    for label in (False, True):
        pairs = dice.permutation(np.flatnonzero(matches_N == label))
        fold_N[pairs] = np.arange(len(pairs)) % folds

    chances_N = np.empty(len(matches_N))
    for fold in range(folds):
        held_out = fold_N == fold
        slope, intercept = fit_calibration(log_odds_N[~held_out], matches_N[~held_out], kind)
        chances_N[held_out] = chances(slope * log_odds_N[held_out] + intercept)
    return chances_N


def measures(chances_N: Floats, matches_N: Bools) -> Measures:
    """Measures the log loss and the calibration error of probabilities."""
    true_label_N = np.where(matches_N, chances_N, 1 - chances_N)
    log_loss = -np.log(np.maximum(true_label_N, np.finfo(float).tiny)).mean()
    return Measures(
        log_loss=float(log_loss), calibration_error=calibration_error(chances_N, matches_N)
    )


def chances(log_odds: Floats) -> Floats:
    """Returns the probabilities 1 / (1 + e^−x) of log-odds x, without overflow at either end."""
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, small) / (1 + small)


def _backtracked(
    features_NF: Floats, targets_N: Floats, weights_F: Floats, step_F: Floats
) -> Floats:
    """Returns the weights after a Newton step. The step is halved until the loss does not increase."""
    before = _loss(features_NF, targets_N, weights_F)
    share = 1.0
    while share > 1e-10 and _loss(features_NF, targets_N, weights_F - share * step_F) > before:
        share /= 2
    return weights_F - share * step_F


def _loss(features_NF: Floats, targets_N: Floats, weights_F: Floats) -> float:
    """Returns the cross-entropy Σ ln(1 + e^x) − target · x, plus the ridge penalty."""
    log_odds_N = features_NF @ weights_F
    entropy = np.logaddexp(0, log_odds_N) - targets_N * log_odds_N
    return float(entropy.sum() + RIDGE * (weights_F @ weights_F) / 2)
