"""Reads score shards as matrices, and resolves thousands of queries at once as `resolve` does for a single query.

Letters: Q queries of a block · K candidates of the longest list · P positives of the longest list · N pairs of all
queries, in order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from miner.selection.annotations import CODE, Codes
from miner.selection.inputs import Sources
from miner.selection.platt import chances
from miner.selection.settings import ScoreFolders
from unijudge.formats.parts import part_path
from unijudge.formats.scores import SCORES, ScoreManifest, present_shards
from unijudge.formats.triples import Scale

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
QUERIES_IN_BLOCK = 4096


@dataclass(frozen=True)
class Block:
    """The matrices of some thousand queries. Missing numbers are NaN."""

    query_ids: list[str]
    overridden_Q: Bools
    """Whether a person marked all positives as negatives, or dropped the row."""
    positive_Q: Floats
    """The label of the row's positive: its score, or 1 if a person marked it as a match."""
    rank_QK: Floats
    """The rank of each candidate, with or without a verdict. NaN for `known` and `twin` items."""
    score_QK: Floats
    """The score of each candidate that may be chosen; 0 if a person marked the candidate as a negative."""
    ceiling_QK: Floats
    """σ⁺ by the judge of the candidate's score; infinite if a person marked the candidate as a negative."""
    similarity_QK: Floats
    """The similarity of each candidate to its query."""
    items: pa.ListArray
    """The item ids of the candidates."""


def read_blocks(sources: Sources, settings: ScoreFolders) -> Iterator[Block]:
    """Yields all queries of a selection in blocks of some thousand, in the order of the corpus.

    Raises:
        DataError: Shards are missing, truncated or of a different job, or an override names an unscored item.
    """
    pairs = zip(settings.scores, sources.manifests, strict=True)
    small, *rest = (
        _Folder(folder, manifest, partial=settings.partial) for folder, manifest in pairs
    )
    unused = set(sources.words.rows)
    for rows, table in small.tables():
        tables = [table, *(_beside(table, large.of(rows)) for large in rest)]
        block = _block(sources, tables)
        unused -= set(block.query_ids)
        yield block
    if unused and not settings.partial:
        sources.check_used(min(unused), None)


class _Folder:
    """A score folder that is read as tables."""

    def __init__(self, folder: Path, manifest: ScoreManifest, *, partial: bool):
        self._folder, self._manifest = folder, manifest
        self._shards = present_shards(folder, manifest, partial=partial)

    def tables(self) -> Iterator[tuple[range, pa.Table]]:
        """Yields ranges of corpus rows and the table of the rows that the folder holds."""
        shards_in_block = max(1, QUERIES_IN_BLOCK // self._manifest.shard_size)
        for start in range(0, len(self._shards), shards_in_block):
            shards = self._shards[start : start + shards_in_block]
            rows = range(
                self._manifest.parts.rows_of(shards[0]).start,
                self._manifest.parts.rows_of(shards[-1]).stop,
            )
            yield rows, self._whole(shards)

    def of(self, rows: range) -> pa.Table:
        """Returns the table of all shards that overlap with a range of corpus rows."""
        overlapping = []
        for shard in self._shards:
            shard_rows = self._manifest.parts.rows_of(shard)
            if shard_rows.start < rows.stop and rows.start < shard_rows.stop:
                overlapping.append(shard)
        return self._whole(overlapping)

    def _whole(self, shards: Sequence[int]) -> pa.Table:
        if not shards:
            return SCORES.schema.empty_table()
        tables = []
        for shard in shards:
            table = SCORES.whole(part_path(self._folder, shard), self._manifest.stamp(shard))
            tables.append(table.replace_schema_metadata())  # each shard has another stamp
        return pa.concat_tables(tables)


class _Lists:
    """A column of lists of judged pairs, flattened to N pairs with their indexes and scores."""

    def __init__(self, column: pa.ChunkedArray, scale: Scale):
        lists = pa.concat_arrays(column.chunks)
        self.sizes = (
            pc.fill_null(pc.list_value_length(lists), 0)
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
        )
        self._pairs = lists.flatten()

        # Row and column of each pair in a matrix with one row for each list.
        self.rows_N = np.repeat(np.arange(len(lists)), self.sizes)
        starts = np.cumsum(self.sizes) - self.sizes
        self.places_N = np.arange(len(self.rows_N)) - np.repeat(starts, self.sizes)

        log_odds_N = self.floats("yes_logprob") - self.floats("no_logprob")
        self.score_N = chances(scale.slope * log_odds_N + scale.intercept)

    def floats(self, name: str) -> Floats:
        """Returns a number of each pair, or NaN if the pair has no such number."""
        return self._pairs.field(name).to_numpy(zero_copy_only=False).astype(np.float64)

    def matrix(self, values_N: Floats | Bools) -> Floats:
        """Returns a matrix with one row for each list, filled up with NaN."""
        width = max(1, self.sizes.max(initial=0))
        matrix_QK = np.full((len(self.sizes), width), np.nan)
        matrix_QK[self.rows_N, self.places_N] = values_N
        return matrix_QK

    @property
    def item_ids(self) -> pa.Array:
        """The item id of each pair."""
        return self._pairs.field("item_id")

    def ids(self) -> pa.ListArray:
        """Returns the item ids as lists, one list for each query."""
        ends = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int32)
        return pa.ListArray.from_arrays(ends, self._pairs.field("item_id"))

    @cached_property
    def names(self) -> pa.Array:
        """The key of each pair in the block, made of its row and item id."""
        return pc.binary_join_element_wise(
            pa.array(self.rows_N).cast(pa.string()), self._pairs.field("item_id"), "/"
        )


def _beside(small: pa.Table, large: pa.Table) -> pa.Table:
    """Returns the second judge's rows for the first judge's queries, in the same order. Missing rows are null."""
    return large.take(pc.index_in(small["query_id"], value_set=large["query_id"].combine_chunks()))


def _block(sources: Sources, tables: Sequence[pa.Table]) -> Block:
    """Resolves the queries of a table, and of a second judge's table in a cascade."""
    query_ids = tables[0]["query_id"].to_pylist()
    positives = [
        _Lists(table["positives"], scale)
        for table, scale in zip(tables, sources.scales, strict=True)
    ]
    candidates = [
        _Lists(table["candidates"], scale)
        for table, scale in zip(tables, sources.scales, strict=True)
    ]
    first = candidates[0]
    _check_overrides(sources, query_ids, positives[0], first)

    # Overrides and labels of the candidates.
    rows = sources.rows_of(query_ids)
    codes_N = sources.words.codes(rows, first.rows_N, first.item_ids)
    match_N, overruled_N = codes_N == CODE["match"], codes_N == CODE["negative"]
    ruled_out_N = (codes_N == CODE["known"]) | (codes_N == CODE["twin"])

    # The label of each row's positive, and the cut by each judge.
    positive_codes = [
        sources.words.codes(rows, lists.rows_N, lists.item_ids, positives=True)
        for lists in positives
    ]
    cuts_and_labels = [
        _cut_and_label(lists, codes) for lists, codes in zip(positives, positive_codes, strict=True)
    ]
    cuts_Q, labels_Q = zip(*cuts_and_labels, strict=True)

    # Candidates with a verdict of the second judge are decided by its scores.
    score_N, cut_N = first.score_N, cuts_Q[0][first.rows_N]
    for second, second_cut_Q in zip(candidates[1:], cuts_Q[1:], strict=True):
        second_score_N = _aligned_scores(sources, first, second)
        second_cut_N = second_cut_Q[first.rows_N]
        has_second_N = ~np.isnan(second_score_N) & ~np.isnan(second_cut_N)
        score_N = np.where(has_second_N, second_score_N, score_N)
        cut_N = np.where(has_second_N, second_cut_N, cut_N)

    # Overrides take precedence over both judges.
    score_N = np.where(np.isnan(cut_N) | match_N | ruled_out_N, np.nan, score_N)
    score_N = np.where(overruled_N, 0.0, score_N)
    cut_N = np.where(overruled_N, np.inf, cut_N)

    # Without a stored rank, a candidate's index counts.
    rank_N = first.floats("rank")
    rank_N = np.where(np.isnan(rank_N), first.places_N, rank_N)

    denied_Q = np.bincount(
        positives[0].rows_N, positive_codes[0] == CODE["negative"], len(query_ids)
    )
    all_denied_Q = (denied_Q == positives[0].sizes) & (denied_Q > 0)
    return Block(
        query_ids=query_ids,
        overridden_Q=sources.words.dropped(query_ids) | all_denied_Q,
        positive_Q=np.where(np.isnan(labels_Q[-1]), labels_Q[0], labels_Q[-1]),
        rank_QK=first.matrix(np.where(ruled_out_N, np.nan, rank_N)),
        score_QK=first.matrix(score_N),
        ceiling_QK=first.matrix(cut_N),
        similarity_QK=first.matrix(first.floats("similarity")),
        items=first.ids(),
    )


def _aligned_scores(sources: Sources, first: _Lists, second: _Lists) -> Floats:
    """Returns the second judge's score of each pair of the first judge, or NaN if it has no verdict."""
    places = pc.index_in(second.names, value_set=first.names)
    if places.null_count:
        raise sources.no_cascade()
    score_N = np.full_like(first.score_N, np.nan)
    score_N[places.to_numpy(zero_copy_only=False).astype(np.int64)] = second.score_N
    return score_N


def _check_overrides(
    sources: Sources, query_ids: Sequence[str], positives: _Lists, candidates: _Lists
) -> None:
    """Checks that overrides name only scored items of these queries."""
    for row, query_id in enumerate(query_ids):
        if query_id in sources.words.rows:
            sources.check_used(
                query_id, {*positives.ids()[row].as_py(), *candidates.ids()[row].as_py()}
            )


def _cut_and_label(positives: _Lists, codes_N: Codes) -> tuple[Floats, Floats]:
    """Returns σ⁺ of each query by one judge, and the label of its positive, or NaN. See `resolve.Positive`."""
    score_N = np.where(codes_N == CODE["negative"], np.nan, positives.score_N)
    score_QP = positives.matrix(score_N)
    score_QP = np.where(np.isnan(score_QP), -np.inf, score_QP)
    best_Q = score_QP.max(1)

    # A positive that a person marked as a match needs no verdict.
    is_match_N = codes_N == CODE["match"]
    matches_Q = np.bincount(positives.rows_N, is_match_N, len(positives.sizes))
    affirmed_Q = matches_Q > 0
    without_verdict_Q = np.where(affirmed_Q, 1.0, np.nan)
    cut_Q = np.where(np.isinf(best_Q), without_verdict_Q, best_Q)
    label_Q = np.where(affirmed_Q, 1.0, cut_Q)
    return cut_Q, label_Q
