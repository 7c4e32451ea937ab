"""Runs a selection over score folders, and writes training rows and their statistics."""

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

is_selection = is_folder_of(
    "triples.json", TripleManifest, lambda _, name: PART.fullmatch(name) is not None
)
"""Returns whether a folder holds a selection and nothing else."""


def select(settings: SelectSettings, *, overwrite: bool = False) -> dict[str, float]:
    """Writes the training rows of a score folder, or of a cascade of two, and returns statistics.

    Raises:
        DataError: The folders do not belong together, scores are missing, or `out` exists and must not be overwritten.
        NothingSelected: Fewer than `min_rows` rows are kept.
    """
    with replacing(settings.out, is_selection, "selection", overwrite=overwrite) as out:
        check_absent(out)
        return _select(settings, out)


def _select(settings: SelectSettings, out: Path) -> dict[str, float]:
    job = _Job(settings)
    with publishing_folder(out) as draft:
        rows = write_triples(draft, job.triples())
        statistics = job.table()
        if rows < settings.min_rows:
            raise _too_few(out, rows, settings.min_rows, statistics)
        digests = [file_sha256(folder / "manifest.json") for folder in settings.scores]
        finish_triples(
            draft,
            TripleManifest(
                corpus=job.corpus.fingerprint,
                scores=digests[0],
                large_scores=digests[1] if len(digests) > 1 else None,
                selection=_recorded(settings),
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


def _too_few(out: Path, rows: int, min_rows: int, statistics: dict[str, float]) -> NothingSelected:
    """Returns the error for a selection with too few rows. Nobody can train on an empty selection."""
    counts = [
        f"{name}: {value:,}"
        for name, value in statistics.items()
        if name.startswith("left out") and value
    ]
    reasons = "; ".join(counts) or "no query was scored"
    kept = "no row is kept"
    if rows:
        kept = f"only {rows:,} rows are kept, fewer than min_rows = {min_rows:,},"
    error = NothingSelected(
        f"{out}: {kept} of {statistics['queries']:,} queries ({reasons}), so nothing was written. Score more "
        "pairs, or select with different `betas`, `suspect_action` or `overrides`"
    )
    error.statistics = statistics
    return error


def _recorded(settings: SelectSettings) -> dict[str, Any]:
    """Returns the settings for the manifest. The path of the corpus is absolute, so that `check` finds the corpus."""
    corpus = settings.corpus.resolve() if is_local(settings.corpus) else settings.corpus
    return without_passwords_in(settings.model_dump(mode="json")) | {"corpus": str(corpus)}


class _Job:
    """The inputs and the statistics of a selection."""

    def __init__(self, settings: SelectSettings):
        self._settings = settings
        self.corpus = Corpus(settings.corpus)
        self.sources = Sources(settings, self.corpus)
        self.sources.check_margins(rule_of(settings).betas)
        self._vectors = (
            None if settings.vectors is None else VectorFolder(settings.vectors, self.corpus)
        )
        self._statistics = Statistics(calibrated=self.sources.calibrated)
        self._sample: Reservoir[list[str]] = Reservoir(settings.seed)
        self._comparison = (
            None if settings.compare is None else SelectionComparison(settings.compare, self.corpus)
        )
        self._extra_positives = 0
        self._of_two_judges = 0
        """Rows with scores of two judges that cannot be compared."""
        self._distinct: Counter[int] = Counter()
        """Number of distinct negatives → number of rows."""

    def triples(self) -> Iterator[Triple]:
        """Yields the training rows, in the order of the corpus."""
        draws = None
        if rule_of(self._settings).walk == "random":
            draws = _Draws(
                self._settings, self.corpus, self.sources.manifests[0], self.sources.words
            )
        for scored in self.sources.cases():
            case = scored
            drawn: list[Judged] = []
            if draws is not None:
                case, drawn = draws.added_to(scored)
            choice = select_negatives(case, self._settings, drawn=drawn)
            self._statistics.count(choice, self._settings.num_negatives)
            if choice.triple is not None:
                self._note(choice.triple)
                yield choice.triple

    def table(self) -> dict[str, float]:
        """Returns the statistics of all rows. Call this after the last row."""
        alike = None
        if self._vectors is not None:
            (alike,) = likeness(self.corpus, self._vectors, [self._sample.held])
        table = self._statistics.table(alike) | {"extra positives offered": self._extra_positives}
        if self._comparison is not None:
            table |= self._comparison.table()
        return table

    def warn(self, rows: int) -> None:
        """Warns of rows that are a problem for training. Call this after the last row."""
        if self._of_two_judges:
            logger.warning(
                "%s: %d rows have scores of two judges that are not both calibrated, so training would compare scores "
                "that cannot be compared. Fit each judge with `mine calibrate`, and select again with both files as "
                "`calibration`",
                self._settings.out, self._of_two_judges,
            )  # fmt: skip
        stored = self._settings.num_negatives
        if repeated := rows - self._distinct[stored]:
            logger.warning(
                "%s: %d of %d rows have fewer than num_negatives = %d distinct negatives and are filled up with "
                "duplicates. Score with a larger k, select with a smaller `num_negatives`, or use fewer negatives of "
                "each row: nine rows of ten have at least %d distinct negatives (set `num_negatives` of a training or "
                "`--negatives` of an export)",
                self._settings.out, repeated, rows, stored, had_by_most(self._distinct),
            )  # fmt: skip

    def _note(self, triple: Triple) -> None:
        distinct = sum(not negative.duplicate for negative in triple.negatives)
        self._distinct[distinct] += 1
        self._extra_positives += len(triple.extra_positives)
        self._of_two_judges += len(triple.judges) > 1 and not self.sources.calibrated
        self._sample.add([negative.item_id for negative in triple.negatives])
        if self._comparison is not None:
            self._comparison.add(triple)


class _Draws:
    """Draws random items of a query's pool, without excluded items. They have no scores and no similarities."""

    def __init__(
        self, settings: SelectSettings, corpus: Corpus, manifest: ScoreManifest, words: Words
    ):
        self._settings = settings
        self._corpus = corpus
        self._words = words
        # Items are excluded by the same rules as in the search for candidates.
        rules = {
            name: manifest.retrieval[name]
            for name in ("fold_case", "allow_query_image")
            if name in manifest.retrieval
        }
        self._pools = Pools(corpus, manifest.pool, **rules)

    def added_to(self, case: Case) -> tuple[Case, list[Judged]]:
        """Draws items for a query, and adds the overrides of these items to its case.

        Args:
            case: The query with its scores and overrides.

        Returns:
            The case with the added overrides, and `num_negatives` drawn items, or fewer if the pool has fewer.
        """
        query_id = case.query.query_id
        row = self._corpus.query_row_of[query_id]
        allowed = self._pools.allowed(row)

        # Overrides may exclude some drawn items. Extra draws replace them.
        wanted = self._settings.num_negatives + self._words.heard_of(row)
        dice = random.Random(f"{self._settings.seed}/{query_id}")  # noqa: S311  reproducible, not secret
        picks = dice.sample(range(len(allowed)), min(len(allowed), wanted))
        item_rows = allowed.take(picks).tolist()
        items = [self._corpus.items[item_row] for item_row in item_rows]

        item_ids = [item.item_id for item in items]
        overrides = self._words.of(query_id, [], item_ids)
        wrong_answers = [item for item in items if overrides.get(item.item_id) not in RIGHT]
        drawn = wrong_answers[: self._settings.num_negatives]

        added = {
            item.item_id: overrides[item.item_id] for item in drawn if item.item_id in overrides
        }
        case = replace(case, overrides={**case.overrides, **added})
        return case, [Judged(item.item_id, item.key, None, None) for item in drawn]
