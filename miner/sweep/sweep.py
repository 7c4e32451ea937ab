"""Many selections of the same scores side by side, in one pass: what each would keep, and at which β to cut.

Nothing is written but the report. What is counted is what `mine select` would print.
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
    """The report: every point of the grid, and the β that the numbers speak for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    corpus: str
    """Fingerprint of the corpus."""
    scores: list[str]
    """sha256 of each score folder's manifest."""
    settings: dict[str, Any]
    calibrated: bool
    """Whether scores are chances."""
    points: list[SweepPoint]
    recommended: int | None
    """A place in `points`; None where none fits."""
    reason: str


@dataclass
class _Running:
    """One point while blocks go by."""

    selection: Selection
    statistics: Statistics
    sample: list[list[str]] = field(default_factory=list)
    """The negatives of sampled rows."""

    def count(self, block: Block, sampled: Sequence[tuple[int, int]]) -> None:
        """Adds a block; `sampled` says which of its rows are held, and where."""
        decided = apply_selection(block, self.selection)
        add(self.statistics, block, decided, self.selection.num_negatives)
        for row, place in sampled:
            ids = block.items[row]
            taken = np.flatnonzero(decided.taken_QK[row]).tolist()
            self.sample[place : place + 1] = [[ids[column].as_py() for column in taken]]

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
    """Counts every point of the grid over one pass of the scores.

    Raises:
        DataError: The folders do not belong together, the scores are not whole, or `out` is something else than the
            report of a sweep.
    """
    if settings.out is not None:
        check_file(settings.out, is_json_of(Sweep), "report of a sweep")
    corpus = Corpus(settings.corpus)
    sources = Sources(settings, corpus)
    sources.check_margins(beta for selection in grid(settings) for beta in rule_of(selection).betas)
    vectors = None if settings.vectors is None else VectorFolder(settings.vectors, corpus)
    running = [_Running(selection, Statistics(calibrated=sources.calibrated)) for selection in grid(settings)]
    sample: Reservoir[None] = Reservoir(settings.seed)
    for block in read_blocks(sources, settings):
        sampled = [] if vectors is None else [(row, sample.place()) for row in range(len(block.query_ids))]
        for one in running:
            one.count(block, [(row, place) for row, place in sampled if place is not None])
    samples = [one.sample for one in running]
    alike = [None] * len(samples) if vectors is None else likeness(corpus, vectors, samples)
    points = [one.point(value) for one, value in zip(running, alike, strict=True)]
    best, reason = recommend(points, settings.max_false_negatives, settings.max_short, calibrated=sources.calibrated)
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
    """Every selection of the grid; margins and strides only where the preset has a use for them."""
    shared = {name: getattr(settings, name) for name in ScoreFolders.model_fields}
    for preset, k in product(settings.presets, settings.ks):
        rule = PRESETS[preset]
        betas = [beta if isinstance(beta, tuple) else (beta,) for beta in settings.betas] if rule.betas else [None]
        for ladder, stride in product(betas, settings.strides if rule.walk == "cyclic" else settings.strides[:1]):
            yield Selection(preset=preset, betas=ladder, k=None if k == "all" else k, stride=stride, **shared)
