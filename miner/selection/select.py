"""Runs a selection over score folders: rows in, training rows and their statistics out."""

import logging
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from miner.retrieval.pools import Pools
from miner.selection.annotations import Words
from miner.selection.compare import SelectionComparison
from miner.selection.diversity import Reservoir, likeness
from miner.selection.inputs import Sources
from miner.selection.negatives import rule_of, select_negatives
from miner.selection.resolve import RIGHT, Case
from miner.selection.settings import SelectSettings
from miner.selection.statistics import Statistics, had_by_most
from unijudge.errors import NothingSelected
from unijudge.formats.corpus import Corpus
from unijudge.formats.parts import PART
from unijudge.formats.scores import Judged, ScoreManifest
from unijudge.formats.triples import Triple, TripleManifest, finish_triples, write_triples
from unijudge.formats.vectors import VectorFolder
from unijudge.provenance import Provenance, without_passwords_in
from unijudge.storage.files import file_sha256, publishing_folder
from unijudge.storage.locations import is_local
from unijudge.storage.outputs import check_absent, is_folder_of, replacing

logger = logging.getLogger(__name__)

is_selection = is_folder_of("triples.json", TripleManifest, lambda _, name: PART.fullmatch(name) is not None)
"""Whether a folder is what `select` writes, and holds nothing else."""


def select(settings: SelectSettings, *, overwrite: bool = False) -> dict[str, float]:
    """Writes the training rows of a score folder, or of a cascade of two, and returns what it counted.

    Raises:
        DataError: The folders do not belong together, the scores are not whole, or `out` exists and is no selection
            that may be overwritten.
        NothingSelected: No row is kept.
    """
    with replacing(settings.out, is_selection, "selection", overwrite=overwrite) as out:
        check_absent(out)
        return _select(settings, out)


def _select(settings: SelectSettings, out: Path) -> dict[str, float]:
    job = _Job(settings)
    with publishing_folder(out) as draft:
        rows = write_triples(draft, job.triples())
        statistics = job.table()
        if not rows:
            raise _nothing(out, statistics)
        first, *second = [file_sha256(folder / "manifest.json") for folder in settings.scores]
        finish_triples(
            draft,
            TripleManifest(
                corpus=job.corpus.fingerprint,
                scores=first,
                large_scores=next(iter(second), None),
                selection=_told(settings),
                scales=tuple(job.sources.scales),
                calibrated=job.sources.calibrated,
                fold_case=job.sources.manifests[0].retrieval.get("fold_case", True),
                rows=rows,
                negatives_in_row=settings.num_negatives,
                statistics=statistics,
                made=Provenance.now(),
            ),
        )
    job.warn(rows)
    return statistics


def _nothing(out: Path, statistics: dict[str, float]) -> NothingSelected:
    """What to raise where no row is kept: nobody could train on an empty selection."""
    reasons = [f"{name}: {value:,}" for name, value in statistics.items() if name.startswith("left out") and value]
    error = NothingSelected(
        f"{out}: no row is kept of {statistics['queries']:,} queries ({'; '.join(reasons) or 'none were scored'}), so "
        "nothing was written. Score more pairs, or select with other `betas`, `suspect_action` or `overrides`"
    )
    error.statistics = statistics
    return error


def _told(settings: SelectSettings) -> dict[str, Any]:
    """The settings, as the manifest keeps them; the corpus by its whole path, by which `check` finds it."""
    corpus = settings.corpus.resolve() if is_local(settings.corpus) else settings.corpus
    return without_passwords_in(settings.model_dump(mode="json")) | {"corpus": str(corpus)}


class _Job:
    """The inputs of a selection, and its counts."""

    def __init__(self, settings: SelectSettings):
        self._settings = settings
        self.corpus = Corpus(settings.corpus)
        self.sources = Sources(settings, self.corpus)
        self.sources.check_margins(rule_of(settings).betas)
        self._vectors = None if settings.vectors is None else VectorFolder(settings.vectors, self.corpus)
        self._statistics = Statistics(calibrated=self.sources.calibrated)
        self._sample: Reservoir[list[str]] = Reservoir(settings.seed)
        self._comparison = None if settings.compare is None else SelectionComparison(settings.compare, self.corpus)
        self._extra_positives = 0
        self._of_two_judges = 0
        """Rows with scores that cannot be compared with one another."""
        self._distinct: Counter[int] = Counter()
        """Number of distinct negatives → rows that have it."""

    def triples(self) -> Iterator[Triple]:
        """The training rows, in the order of the corpus."""
        random_walk = rule_of(self._settings).walk == "random"
        draws = None
        if random_walk:
            draws = _Draws(self._settings, self.corpus, self.sources.manifests[0], self.sources.words)
        for source in self.sources.cases():
            case, drawn = (source, []) if draws is None else draws.added_to(source)
            choice = select_negatives(case, self._settings, drawn=drawn)
            self._statistics.count(choice, self._settings.num_negatives)
            if choice.triple is not None:
                self._note(choice.triple)
                yield choice.triple

    def table(self) -> dict[str, float]:
        """What was counted, once all rows went by."""
        (alike,) = [None] if self._vectors is None else likeness(self.corpus, self._vectors, [self._sample.held])
        table = self._statistics.table(alike) | {"extra positives offered": self._extra_positives}
        return table | ({} if self._comparison is None else self._comparison.table())

    def warn(self, rows: int) -> None:
        """Says what a training may trip over, once all rows went by."""
        if self._of_two_judges:
            logger.warning(
                "%s: %d rows have the scores of two judges, and these are not both calibrated, so a training would "
                "compare what cannot be compared; fit each judge (`mine calibrate`), and select again with both files "
                "as `calibration`",
                self._settings.out, self._of_two_judges,
            )  # fmt: skip
        stored = self._settings.num_negatives
        if repeated := rows - self._distinct[stored]:
            logger.warning(
                "%s: %d of %d rows have fewer than num_negatives = %d distinct negatives, and repeat some to fill up. "
                "Score with a larger k, select with a smaller `num_negatives`, or use fewer of each row: %d in nine "
                "rows of ten are distinct (`num_negatives` of a training, `--negatives` of an export)",
                self._settings.out, repeated, rows, stored, had_by_most(self._distinct),
            )  # fmt: skip

    def _note(self, triple: Triple) -> None:
        self._extra_positives += len(triple.extra_positives)
        self._distinct[sum(not negative.duplicate for negative in triple.negatives)] += 1
        self._of_two_judges += len(triple.judges) > 1 and not self.sources.calibrated
        self._sample.add([negative.item_id for negative in triple.negatives])
        if self._comparison is not None:
            self._comparison.add(triple)


class _Draws:
    """Random items of a query's pool, never one that can be no wrong answer; unjudged and unmeasured."""

    def __init__(self, settings: SelectSettings, corpus: Corpus, manifest: ScoreManifest, words: Words):
        self._settings = settings
        self._corpus = corpus
        self._words = words
        same = {
            name: manifest.retrieval[name] for name in ("fold_case", "allow_query_image") if name in manifest.retrieval
        }
        self._pools = Pools(corpus, manifest.pool, **same)

    def added_to(self, case: Case) -> tuple[Case, list[Judged]]:
        """A query's drawn items, as many as a row has or as the pool has, and its case with the verdicts on them."""
        query_id = case.query.query_id
        dice = random.Random(f"{self._settings.seed}/{query_id}")  # noqa: S311  reproducible, not secret
        row = self._corpus.query_row_of[query_id]
        allowed = self._pools.allowed(row)

        # A few more, so that enough are left where people ruled some of them out.
        wanted = self._settings.num_negatives + self._words.heard_of(row)
        picks = dice.sample(range(len(allowed)), min(len(allowed), wanted))
        items = [self._corpus.items[item] for item in allowed.take(picks).tolist()]
        overrides = self._words.of(query_id, [], [item.item_id for item in items])
        left = [item for item in items if overrides.get(item.item_id) not in RIGHT][: self._settings.num_negatives]

        verdicts = {item.item_id: overrides[item.item_id] for item in left if item.item_id in overrides}
        drawn = [Judged(item.item_id, item.key, None, None) for item in left]
        return replace(case, overrides={**case.overrides, **verdicts}), drawn
