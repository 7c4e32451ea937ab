"""What a selection reads: one folder of scores or two side by side, their judges' scales, and a person's word.

It checks that they belong together, and yields queries; it chooses nothing.
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
    """The inputs of one selection, opened."""

    def __init__(self, settings: ScoreFolders, corpus: Corpus):
        """Reads the manifests and the small files.

        Raises:
            DataError: They do not belong together.
        """
        self._settings = settings
        self._corpus = corpus
        self.manifests = [read_json(folder / "manifest.json", ScoreManifest) for folder in settings.scores]
        for folder, manifest in zip(settings.scores, self.manifests, strict=True):
            if manifest.corpus != corpus.fingerprint:
                raise DataError(f"{folder}: was scored from another corpus than {corpus.folder}; give that one")
        if len(self.manifests) == 2 and self.manifests[0].judge == self.manifests[1].judge:
            raise DataError(
                f"{settings.scores[1]}: was scored by the same judge as {settings.scores[0]} "
                f"({self.manifests[1].judge}); a cascade takes a small judge's folder, then a large one's"
            )
        self._check_band_source()
        self.scales, self.calibrated = self._read_scales()
        self.words = self._read_words()

    def cases(self) -> Iterator[Case]:
        """Every query, in the order of the corpus.

        Raises:
            DataError: Shards are missing, torn or foreign; or a person's word is about what was never scored.
        """
        unused = set(self.words.rows)
        for query, large in self._rows():
            positives = [one.item_id for one in query.positives]
            candidates = [one.item_id for one in query.candidates]
            if query.query_id in self.words.rows:
                self.check_used(query.query_id, {*positives, *candidates})
                unused.discard(query.query_id)
            yield Case(query, large, self.words.of(query.query_id, positives, candidates), self.scales)
        if unused and not self._settings.partial:
            self.check_used(min(unused), None)

    def rows_of(self, query_ids: Sequence[str]) -> Rows:
        """The rows of queries in the corpus."""
        return self._corpus.query_row_of.rows(pa.array(query_ids, pa.string()))

    def check_used(self, query_id: str, items: set[str] | None) -> None:
        """Refuses a person's word about a query that is about none of its items; None: the query was not scored.

        Raises:
            DataError: There is such a word.
        """
        named = sorted(self.words.rows[query_id], key=lambda item: item or "")
        strange = [item for item in named if items is None or (item is not None and item not in items)]
        if strange:
            about = "" if strange[0] is None else f", item {strange[0]!r}"
            raise DataError(
                f"{self._settings.overrides}: query {query_id!r}{about} is not among the scores of "
                f"{self._settings.scores[0]}; give the overrides of these scores, or take that one out"
            )

    def check_margins(self, betas: Iterable[float]) -> None:
        """Warns of margins whose cut lies outside of the band in which the second judge was asked."""
        band = self._band
        if band is None:
            return
        far = [beta for beta in sorted(set(betas)) if not at_most(abs(beta - band["beta"]), band["width"])]
        if far:
            logger.warning(
                "%s: its band lies within %.4g of the cut at β = %.4g, but this cuts at β = %s: the second judge was "
                "not asked about candidates near that cut. Score the second step again with another cascade.beta or a "
                "larger band.width, or take a β inside of the band",
                self._settings.scores[-1], band["width"], band["beta"], ", ".join(f"{beta:g}" for beta in far),
            )  # fmt: skip

    def no_cascade(self) -> DataError:
        """What to raise where the second judge has a candidate that the first one has not."""
        first, second = self._settings.scores
        return DataError(
            f"{second}: has a candidate that {first} has not; the second step of a cascade is scored with the first "
            "one's folder as its band"
        )

    def _rows(self) -> Iterator[tuple[JudgedQuery, JudgedQuery | None]]:
        small, *rest = (read_scores(folder, partial=self._settings.partial) for folder in self._settings.scores)
        large = next(iter(rest), iter(()))
        row_of = self._corpus.query_row_of
        other = next(large, None)
        for query in small:
            while other is not None and row_of[other.query_id] < row_of[query.query_id]:
                other = next(large, None)
            beside = other if other is not None and other.query_id == query.query_id else None
            known = {one.item_id for one in query.candidates} if beside is not None else set()
            if beside is not None and any(one.item_id not in known for one in beside.candidates):
                raise self.no_cascade()
            yield query, beside

    def _read_scales(self) -> tuple[list[Scale], bool]:
        """Each judge's scale, and whether a fitted calibration stands behind all of them."""
        fitted = calibration_of(self.manifests, self._settings.calibration)
        plain = Scale(slope=1 / self._settings.log_odds_divisor)
        scales = [plain if scale is None else scale for scale in fitted]
        self._check_band(scales[0])
        return scales, None not in fitted

    @property
    def _band(self) -> dict[str, Any] | None:
        """Which candidates of the first folder the second judge was asked about; None without a second folder."""
        return self.manifests[-1].band if len(self.manifests) == 2 else None

    def _check_band_source(self) -> None:
        """Refuses a second folder whose band was drawn from other scores than those of the first folder.

        Raises:
            DataError: It was: what the second judge says is about the doubts of another judge.
        """
        band, (first, *second) = self._band, self._settings.scores
        if band is not None and band["scores"] != self.manifests[0].fingerprint:
            raise DataError(
                f"{second[0]}: is the second step of a cascade, drawn from the scores with fingerprint "
                f"{band['scores'][:16]}, but {first} has {self.manifests[0].fingerprint[:16]}; give the folder that "
                "was its band.scores, or score the second step of this one"
            )

    def _check_band(self, first: Scale) -> None:
        """Warns where the second judge was asked about candidates near another cut than the one that is made here."""
        band = self._band
        if band is None:
            return
        drawn = Scale(slope=band["slope"], intercept=band["intercept"])
        if drawn != first:
            logger.warning(
                "%s: its band was drawn around the cut of scores with slope %.4g and intercept %.4g, but this "
                "selection cuts scores of the first judge with %.4g and %.4g: candidates near this cut may not have "
                "been asked about. Score the second step again, with cascade.calibration and cascade.log_odds_divisor "
                "as here",
                self._settings.scores[-1], drawn.slope, drawn.intercept, first.slope, first.intercept,
            )  # fmt: skip

    def _read_words(self) -> Words:
        path = self._settings.overrides
        overrides = () if path is None else read_overrides(path, self._corpus.fingerprint).overrides
        return Words(self._corpus, self.manifests[0], overrides, path)
