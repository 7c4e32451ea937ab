"""A judge's scores as chances: a slope and an intercept for its log-odds, fitted to labelled pairs by likelihood. Pure.

The fit is Platt's, with his smoothed targets, which also keep it finite where the labels can be separated; Newton's
method with backtracking. It cannot mend a judge that is wrong in its order, and refuses one that is wrong in its sign.
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
"""On the slope and the intercept: decides where the data do not."""


class Measures(BaseModel):
    """How far scores are from chances, over labelled pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_loss: float
    """Mean −ln of the chance that was given to what is the case, in nats."""
    calibration_error: float
    """Expected calibration error over ten bins, 0 … 1."""


class Calibration(BaseModel):
    """calibration.json: one judge's slope and intercept, and what they were fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    judge: str
    """The digest of its identity."""
    kind: CalibrationKind
    slope: float
    intercept: float
    matches: int
    """Labelled pairs that match."""
    negatives: int
    without_verdict: int
    """Labelled pairs that the judge gave no verdict on: left out."""
    before: Measures
    """Of the plain scores."""
    after: Measures
    """Of every pair by a fit to the others' parts (cross-validation)."""
    folds: int
    """Parts of that cross-validation."""

    def gain(self, name: str) -> float:
        """By how much a measure became smaller; negative: the calibration makes it worse."""
        return float(getattr(self.before, name) - getattr(self.after, name))

    @property
    def scale(self) -> Scale:
        """What makes scores."""
        return Scale(slope=self.slope, intercept=self.intercept)


def read_calibration(path: Path) -> Calibration:
    """Reads what `mine calibrate` wrote.

    Raises:
        DataError: No such file, or not one of ours.
    """
    return read_json(path, Calibration)


def calibration_of(manifests: Sequence[ScoreManifest], files: Sequence[Path]) -> list[Scale | None]:
    """The fitted scale of each folder's judge; None for a judge that no file is of.

    Raises:
        DataError: A file cannot be read, is of a judge that scored none of these folders, or two are of one judge.
    """
    digests = [manifest.judge.digest for manifest in manifests]
    fitted: dict[str, Scale] = {}
    for path in files:
        read = read_calibration(path)
        if read.judge not in digests or read.judge in fitted:
            judges = " and ".join(str(manifest.judge) for manifest in manifests)
            raise DataError(
                f"{path}: was fitted to judge {read.judge}, the scores are of {judges}; give one calibration "
                "for each, made by `mine calibrate` on these scores"
            )
        fitted[read.judge] = read.scale
    return [fitted.get(digest) for digest in digests]


def fit_calibration(log_odds_N: Floats, matches_N: Bools, kind: CalibrationKind) -> tuple[float, float]:
    """The slope a and the intercept b under which labels are likeliest.

        P(match) = sigmoid(a · log_odds + b),   b = 0 for `temperature`,

    with Platt's targets (N₊ + 1) / (N₊ + 2) for matches and 1 / (N₋ + 2) for the others in the place of 1 and 0.

    Args:
        log_odds_N: Of labelled pairs.
        matches_N: Their labels.
        kind: `temperature` or `platt`.

    Returns:
        Slope and intercept.

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
    targets_N = np.where(matches_N, (num_matches + 1) / (num_matches + 2), 1 / (len(matches_N) - num_matches + 2))
    columns_NF = np.stack([log_odds_N, np.ones_like(log_odds_N)], 1)[:, : 1 if kind == "temperature" else 2]
    weights_F = np.zeros(columns_NF.shape[1])
    for _ in range(100):
        chances_N = chances(columns_NF @ weights_F)
        gradient_F = columns_NF.T @ (chances_N - targets_N) + RIDGE * weights_F
        if np.abs(gradient_F).max() < 1e-8 * len(targets_N):
            break
        curvature_FF = (columns_NF * (chances_N * (1 - chances_N))[:, None]).T @ columns_NF
        step_F = np.linalg.solve(curvature_FF + RIDGE * np.eye(len(weights_F)), gradient_F)
        weights_F = _backtracked(columns_NF, targets_N, weights_F, step_F)
    return float(weights_F[0]), float(weights_F[1]) if len(weights_F) > 1 else 0.0


def cross_validated(log_odds_N: Floats, matches_N: Bools, kind: CalibrationKind, folds: int, seed: int) -> Floats:
    """Every pair's chance by a fit to the other parts; both labels are dealt evenly to the parts."""
    dice = np.random.default_rng(seed)
    parts_N = np.empty(len(matches_N), int)
    for label in (False, True):
        places = dice.permutation(np.flatnonzero(matches_N == label))
        parts_N[places] = np.arange(len(places)) % folds
    found_N = np.empty(len(matches_N))
    for part in range(folds):
        out = parts_N == part
        slope, intercept = fit_calibration(log_odds_N[~out], matches_N[~out], kind)
        found_N[out] = chances(slope * log_odds_N[out] + intercept)
    return found_N


def measures(chances_N: Floats, matches_N: Bools) -> Measures:
    """Log loss and calibration error."""
    given_N = np.where(matches_N, chances_N, 1 - chances_N)
    log_loss = -np.log(np.maximum(given_N, np.finfo(float).tiny)).mean()
    return Measures(log_loss=float(log_loss), calibration_error=calibration_error(chances_N, matches_N))


def chances(log_odds: Floats) -> Floats:
    """1 / (1 + e^−x), without overflow at either end."""
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, small) / (1 + small)


def _backtracked(columns_NF: Floats, targets_N: Floats, weights_F: Floats, step_F: Floats) -> Floats:
    """The Newton step, halved until it does not raise the loss."""
    before = _loss(columns_NF, targets_N, weights_F)
    share = 1.0
    while share > 1e-10 and _loss(columns_NF, targets_N, weights_F - share * step_F) > before:
        share /= 2
    return weights_F - share * step_F


def _loss(columns_NF: Floats, targets_N: Floats, weights_F: Floats) -> float:
    """Cross-entropy, Σ ln(1 + e^x) − target · x, and the ridge."""
    log_odds_N = columns_NF @ weights_F
    entropy = np.logaddexp(0, log_odds_N) - targets_N * log_odds_N
    return float(entropy.sum() + RIDGE * (weights_F @ weights_F) / 2)
