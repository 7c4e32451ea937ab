"""Compares many selections of the same scores in one pass, and recommends a β.

The statistics are those that `mine select` would print. Only the report is written, no training rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from miner.selection.diversity import Reservoir, likeness
from miner.selection.inputs import Sources
from miner.selection.negatives import PRESETS, rule_of
from miner.selection.settings import ScoreFolders, Selection
from miner.selection.statistics import Statistics
from miner.sweep.matrices import Block, read_blocks
from miner.sweep.recommend import SweepPoint, recommend
from miner.sweep.settings import SweepSettings
from miner.sweep.vectorized import add, apply_selection
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import VectorFolder
from unijudge.storage.files import file_sha256, publish_json
from unijudge.storage.outputs import check_file, is_json_of


class Sweep(BaseModel):
    """The report of a sweep: every point of the grid, and the recommended point."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    corpus: str
    """The fingerprint of the corpus."""
    scores: list[str]
    """The sha256 of each score folder's manifest."""
    settings: dict[str, Any]
    calibrated: bool
    """Whether scores are probabilities."""
    points: list[SweepPoint]
    recommended: int | None
    """The index of the recommended point in `points`; None if no point fits."""
    reason: str


@dataclass
class _Running:
    """One point of the grid while its statistics are counted."""

    selection: Selection
    statistics: Statistics
    sample: list[list[str]] = field(default_factory=list)
    """The negatives of sampled rows."""

    def count(self, block: Block, sampled: Sequence[tuple[int, int]]) -> None:
        """Adds a block to the statistics.

        Args:
            block: The next queries.
            sampled: The rows of the block to sample, each with its index in `sample`.
        """
        decided = apply_selection(block, self.selection)
        add(self.statistics, block, decided, self.selection.num_negatives)
        for row, place in sampled:
            ids = block.items[row]
            columns = np.flatnonzero(decided.taken_QK[row]).tolist()
            negatives = [ids[column].as_py() for column in columns]
            self.sample[place : place + 1] = [negatives]

    def point(self, alike: float | None) -> SweepPoint:
        rule, statistics = rule_of(self.selection), self.statistics
        tried = statistics.reasons["kept"] + statistics.reasons["no survivor"]
        return SweepPoint(
            preset=self.selection.preset,
            betas=rule.betas,
            k=self.selection.k,
            stride=self.selection.stride if rule.walk == "cyclic" else None,
            statistics=statistics.table(alike),
            false_negative_share=statistics.false_negative_share,
            short_share=statistics.short / tried if tried else None,
        )


def sweep(settings: SweepSettings) -> Sweep:
    """Counts the statistics of every point of the grid in one pass over the scores.

    Raises:
        DataError: The folders do not belong together, scores are missing, or `out` exists and is no report of a sweep.
    """
    if settings.out is not None:
        check_file(settings.out, is_json_of(Sweep), "report of a sweep")
    corpus = Corpus(settings.corpus)
    sources = Sources(settings, corpus)
    sources.check_margins(beta for selection in grid(settings) for beta in rule_of(selection).betas)
    vectors = None if settings.vectors is None else VectorFolder(settings.vectors, corpus)
    running = [
        _Running(selection, Statistics(calibrated=sources.calibrated))
        for selection in grid(settings)
    ]

    # All points sample the same rows, so that their diversity can be compared.
    sample: Reservoir[None] = Reservoir(settings.seed)
    for block in read_blocks(sources, settings):
        sampled = []
        for row in range(len(block.query_ids) if vectors is not None else 0):
            place = sample.place()
            if place is not None:
                sampled.append((row, place))
        for each in running:
            each.count(block, sampled)

    # Vectors of all sampled negatives are read at once.
    diversities: list[float | None] = [None] * len(running)
    if vectors is not None:
        diversities = likeness(corpus, vectors, [each.sample for each in running])
    points = [each.point(diversity) for each, diversity in zip(running, diversities, strict=True)]
    best, reason = recommend(
        points, settings.max_false_negatives, settings.max_short, calibrated=sources.calibrated
    )
    report = Sweep(
        corpus=corpus.fingerprint,
        scores=[file_sha256(folder / "manifest.json") for folder in settings.scores],
        settings=settings.model_dump(mode="json"),
        calibrated=sources.calibrated,
        points=points,
        recommended=best,
        reason=reason,
    )
    if settings.out is not None:
        publish_json(settings.out, report)
    return report


def grid(settings: SweepSettings) -> Iterator[Selection]:
    """Yields every selection of the grid. Margins and strides vary only for presets that use them."""
    shared = {name: getattr(settings, name) for name in ScoreFolders.model_fields}
    for preset, k in product(settings.presets, settings.ks):
        rule = PRESETS[preset]
        ladders: list[tuple[float, ...] | None] = [None]
        if rule.betas:
            ladders = [beta if isinstance(beta, tuple) else (beta,) for beta in settings.betas]
        strides = settings.strides if rule.walk == "cyclic" else settings.strides[:1]
        for ladder, stride in product(ladders, strides):
            yield Selection(
                preset=preset, betas=ladder, k=None if k == "all" else k, stride=stride, **shared
            )
