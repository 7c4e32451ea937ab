"""Opens the inputs of a selection: one or two folders of scores, the scales of their judges, and overrides.

This module checks that the inputs belong together, and yields queries. It does not choose negatives.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from miner.selection.annotations import Words
from miner.selection.overrides import read_overrides
from miner.selection.platt import calibration_of
from miner.selection.resolve import Case, at_most
from miner.selection.settings import ScoreFolders
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import Rows
from unijudge.formats.scores import JudgedQuery, ScoreManifest, read_scores
from unijudge.formats.triples import Scale
from unijudge.storage.files import read_json

logger = logging.getLogger(__name__)


class Sources:
    """The opened inputs of one selection."""

    def __init__(self, settings: ScoreFolders, corpus: Corpus):
        """Reads the manifests, calibrations and overrides.

        Raises:
            DataError: The inputs do not belong together.
        """
        self._settings = settings
        self._corpus = corpus
        self.manifests = [
            read_json(folder / "manifest.json", ScoreManifest) for folder in settings.scores
        ]
        for folder, manifest in zip(settings.scores, self.manifests, strict=True):
            if manifest.corpus != corpus.fingerprint:
                raise DataError(
                    f"{folder}: was scored from another corpus than {corpus.folder}. Give the corpus of the scores"
                )
        if len(self.manifests) == 2 and self.manifests[0].judge == self.manifests[1].judge:
            raise DataError(
                f"{settings.scores[1]}: was scored by the same judge as {settings.scores[0]} "
                f"({self.manifests[1].judge}). For a cascade, give a small judge's folder, then a large judge's folder"
            )
        self._check_band_source()
        self.scales, self.calibrated = self._read_scales()
        self.words = self._read_words()

    def cases(self) -> Iterator[Case]:
        """Yields every query, in the order of the corpus.

        Raises:
            DataError: Shards are missing, truncated or of a different job, or an override names an unscored item.
        """
        unused = set(self.words.rows)
        for query, large in self._rows():
            positives = [judged.item_id for judged in query.positives]
            candidates = [judged.item_id for judged in query.candidates]
            if query.query_id in self.words.rows:
                self.check_used(query.query_id, {*positives, *candidates})
                unused.discard(query.query_id)
            yield Case(
                query, large, self.words.of(query.query_id, positives, candidates), self.scales
            )
        if unused and not self._settings.partial:
            self.check_used(min(unused), None)

    def rows_of(self, query_ids: Sequence[str]) -> Rows:
        """Returns the rows of queries in the corpus."""
        return self._corpus.query_row_of.rows(pa.array(query_ids, pa.string()))

    def check_used(self, query_id: str, items: set[str] | None) -> None:
        """Checks that the overrides of a query name only its items.

        Args:
            query_id: A query with overrides.
            items: The scored items of the query; None if the query was not scored.

        Raises:
            DataError: An override names another item, or the query was not scored.
        """
        named = sorted(self.words.rows[query_id], key=lambda item: item or "")
        unscored = [
            item for item in named if items is None or (item is not None and item not in items)
        ]
        if unscored:
            item_text = "" if unscored[0] is None else f", item {unscored[0]!r}"
            raise DataError(
                f"{self._settings.overrides}: query {query_id!r}{item_text} is not among the scores of "
                f"{self._settings.scores[0]}. Give the overrides of these scores, or remove this override"
            )

    def check_margins(self, betas: Iterable[float]) -> None:
        """Warns of margins whose cut lies outside the band that the second judge scored."""
        band = self._band
        if band is None:
            return
        outside = [
            beta
            for beta in sorted(set(betas))
            if not at_most(abs(beta - band["beta"]), band["width"])
        ]
        if outside:
            logger.warning(
                "%s: the second judge scored only candidates within %.4g of the cut at β = %.4g, but this selection "
                "cuts at β = %s. Score the second step again with a different cascade.beta or a larger cascade.width, "
                "or choose a β inside the band",
                self._settings.scores[-1], band["width"], band["beta"], ", ".join(f"{beta:g}" for beta in outside),
            )  # fmt: skip

    def no_cascade(self) -> DataError:
        """Returns the error for a second folder with a candidate that the first folder does not have."""
        first, second = self._settings.scores
        return DataError(
            f"{second}: has a candidate that {first} does not have. Score the second step of the cascade with "
            f"cascade.scores={first}"
        )

    def _rows(self) -> Iterator[tuple[JudgedQuery, JudgedQuery | None]]:
        """Yields each query by the first judge, with the same query by the second judge if there is one."""
        small, *rest = (
            read_scores(folder, partial=self._settings.partial) for folder in self._settings.scores
        )
        large: Iterator[JudgedQuery] = rest[0] if rest else iter(())
        row_of = self._corpus.query_row_of
        large_query = next(large, None)
        for query in small:
            # Both folders follow the order of the corpus, but the second folder may skip queries.
            while large_query is not None and row_of[large_query.query_id] < row_of[query.query_id]:
                large_query = next(large, None)
            if large_query is None or large_query.query_id != query.query_id:
                yield query, None
                continue

            candidates = {judged.item_id for judged in query.candidates}
            if any(judged.item_id not in candidates for judged in large_query.candidates):
                raise self.no_cascade()
            yield query, large_query

    def _read_scales(self) -> tuple[list[Scale], bool]:
        """Returns each judge's scale, and whether all scales come from fitted calibrations."""
        fitted = calibration_of(self.manifests, self._settings.calibration)
        plain = Scale(slope=1 / self._settings.log_odds_divisor)
        scales = [plain if scale is None else scale for scale in fitted]
        self._check_band(scales[0])
        return scales, None not in fitted

    @property
    def _band(self) -> dict[str, Any] | None:
        """The band of first scores in which the second judge scored candidates; None without a second folder."""
        return self.manifests[-1].band if len(self.manifests) == 2 else None

    def _check_band_source(self) -> None:
        """Checks that the band of the second folder was drawn from the scores of the first folder.

        Raises:
            DataError: The band was drawn from different scores, so the second judge scored other candidates.
        """
        band, (first, *second) = self._band, self._settings.scores
        if band is not None and band["scores"] != self.manifests[0].fingerprint:
            raise DataError(
                f"{second[0]}: is the second step of a cascade, drawn from the scores with fingerprint "
                f"{band['scores'][:16]}, but {first} has fingerprint {self.manifests[0].fingerprint[:16]}. Give the "
                f"folder that was its cascade.scores, or score the second step again with cascade.scores={first}"
            )

    def _check_band(self, first: Scale) -> None:
        """Warns if the band of the second folder was drawn around a different cut than the cut of this selection."""
        band = self._band
        if band is None:
            return
        band_scale = Scale(slope=band["slope"], intercept=band["intercept"])
        if band_scale != first:
            logger.warning(
                "%s: the second judge scored candidates near the cut of scores with slope %.4g and intercept %.4g, but "
                "this selection cuts scores of the first judge with slope %.4g and intercept %.4g. The second judge "
                "may not have scored candidates near this cut. Score the second step again, with the "
                "cascade.calibration and cascade.log_odds_divisor of this selection",
                self._settings.scores[-1], band_scale.slope, band_scale.intercept, first.slope, first.intercept,
            )  # fmt: skip

    def _read_words(self) -> Words:
        path = self._settings.overrides
        overrides = () if path is None else read_overrides(path, self._corpus.fingerprint).overrides
        return Words(self._corpus, self.manifests[0], overrides, path)
