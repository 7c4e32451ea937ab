"""Score shards as matrices, for arithmetic over many queries at once: what `resolve` makes of one query, for thousands.

Letters: Q queries of a block · K candidates of the longest list · P positives of the longest list · N pairs in a row.
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
    """Some queries. NaN where there is no number."""

    query_ids: list[str]
    overridden_Q: Bools
    """A person left no positive, or wants no row."""
    positive_Q: Floats
    """The label of the row's positive: its score, or 1 where a person calls it a match."""
    rank_QK: Floats
    """Of every candidate, with a verdict or without; not of those that the corpus rules out."""
    score_QK: Floats
    """Of those that may be chosen; 0 where a person says that it does not answer the query."""
    ceiling_QK: Floats
    """σ⁺ by the same judge; infinite where a person overruled the judge."""
    similarity_QK: Floats
    items: pa.ListArray
    """The candidates' ids."""


def read_blocks(sources: Sources, settings: ScoreFolders) -> Iterator[Block]:
    """Yields every query of a selection's scores, some thousands at once, in the order of the corpus.

    Raises:
        DataError: Shards are missing, torn or foreign; or a person's word is about what was never scored.
    """
    small, *rest = (
        _Folder(folder, manifest, partial=settings.partial)
        for folder, manifest in zip(settings.scores, sources.manifests, strict=True)
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
    """A score folder as tables."""

    def __init__(self, folder: Path, manifest: ScoreManifest, *, partial: bool):
        self._folder, self._manifest = folder, manifest
        self._shards = present_shards(folder, manifest, partial=partial)

    def tables(self) -> Iterator[tuple[range, pa.Table]]:
        """Corpus rows from first to last, and the table of those that are there."""
        together = max(1, QUERIES_IN_BLOCK // self._manifest.shard_size)
        for place in range(0, len(self._shards), together):
            shards = self._shards[place : place + together]
            rows = range(self._manifest.parts.rows_of(shards[0]).start, self._manifest.parts.rows_of(shards[-1]).stop)
            yield rows, self._whole(shards)

    def of(self, rows: range) -> pa.Table:
        """The table of all shards with any of these rows."""
        inside = (self._manifest.parts.rows_of(shard) for shard in self._shards)
        overlaps = [shard.start < rows.stop and rows.start < shard.stop for shard in inside]
        return self._whole([shard for shard, overlap in zip(self._shards, overlaps, strict=True) if overlap])

    def _whole(self, shards: Sequence[int]) -> pa.Table:
        read = (SCORES.whole(part_path(self._folder, n), self._manifest.stamp(n)) for n in shards)
        tables = [table.replace_schema_metadata() for table in read]
        return pa.concat_tables(tables) if tables else SCORES.schema.empty_table()


class _Lists:
    """A column of lists of judged pairs, flat: N pairs, where each stands, and its score."""

    def __init__(self, column: pa.ChunkedArray, scale: Scale):
        lists = pa.concat_arrays(column.chunks)
        self.sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        self._pairs = lists.flatten()
        self.rows_N = np.repeat(np.arange(len(lists)), self.sizes)
        self.places_N = np.arange(len(self.rows_N)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        self.score_N = chances(scale.slope * (self.floats("yes_logprob") - self.floats("no_logprob")) + scale.intercept)

    def floats(self, name: str) -> Floats:
        """A number of each pair; NaN where there is none."""
        return self._pairs.field(name).to_numpy(zero_copy_only=False).astype(np.float64)

    def matrix(self, values_N: Floats | Bools) -> Floats:
        """One row for each list; NaN behind its end."""
        made = np.full((len(self.sizes), max(1, self.sizes.max(initial=0))), np.nan)
        made[self.rows_N, self.places_N] = values_N
        return made

    @property
    def item_ids(self) -> pa.Array:
        """Of each pair."""
        return self._pairs.field("item_id")

    def ids(self) -> pa.ListArray:
        """The items' ids, as the lists had them."""
        ends = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int32)
        return pa.ListArray.from_arrays(ends, self._pairs.field("item_id"))

    @cached_property
    def names(self) -> pa.Array:
        """What names each pair within the block: its row and its item."""
        return pc.binary_join_element_wise(pa.array(self.rows_N).cast(pa.string()), self._pairs.field("item_id"), "/")


def _beside(small: pa.Table, large: pa.Table) -> pa.Table:
    """The second judge's rows of the first one's queries, in their order; empty ones where it has none."""
    return large.take(pc.index_in(small["query_id"], value_set=large["query_id"].combine_chunks()))


def _block(sources: Sources, tables: Sequence[pa.Table]) -> Block:
    query_ids = tables[0]["query_id"].to_pylist()
    positives = [_Lists(t["positives"], scale) for t, scale in zip(tables, sources.scales, strict=True)]
    candidates = [_Lists(t["candidates"], scale) for t, scale in zip(tables, sources.scales, strict=True)]
    first, at = candidates[0], candidates[0].rows_N
    _check_heard(sources, query_ids, positives[0], first)
    rows = sources.rows_of(query_ids)
    codes_N = sources.words.codes(rows, at, first.item_ids)
    match_N, overruled_N, known_N, twin_N = (codes_N == CODE[word] for word in ("match", "negative", "known", "twin"))

    # The row's positive, and the cut by each judge.
    said = [sources.words.codes(rows, lists.rows_N, lists.item_ids, positives=True) for lists in positives]
    cuts_Q, labels_Q = zip(*(_cut_and_label(*one) for one in zip(positives, said, strict=True)), strict=True)

    # What the second judge answered is decided by its own scores.
    score_N, cut_N = first.score_N, cuts_Q[0][at]
    for again, cut_Q in zip(candidates[1:], cuts_Q[1:], strict=True):
        again_N = np.full_like(score_N, np.nan)
        places = pc.index_in(again.names, value_set=first.names)
        if places.null_count:
            raise sources.no_cascade()
        again_N[places.to_numpy(zero_copy_only=False).astype(np.int64)] = again.score_N
        decides_N = ~np.isnan(again_N) & ~np.isnan(cut_Q[at])
        score_N, cut_N = np.where(decides_N, again_N, score_N), np.where(decides_N, cut_Q[at], cut_N)

    # A person's word stands above both judges.
    score_N = np.where(np.isnan(cut_N) | match_N | known_N | twin_N, np.nan, score_N)
    score_N, cut_N = np.where(overruled_N, 0.0, score_N), np.where(overruled_N, np.inf, cut_N)
    rank_N = first.floats("rank")
    rank_N = np.where(np.isnan(rank_N), first.places_N, rank_N)
    denied_Q = np.bincount(positives[0].rows_N, said[0] == CODE["negative"], len(query_ids))
    return Block(
        query_ids=query_ids,
        overridden_Q=sources.words.dropped(query_ids) | ((denied_Q == positives[0].sizes) & (denied_Q > 0)),
        positive_Q=np.where(np.isnan(labels_Q[-1]), labels_Q[0], labels_Q[-1]),
        rank_QK=first.matrix(np.where(known_N | twin_N, np.nan, rank_N)),
        score_QK=first.matrix(score_N),
        ceiling_QK=first.matrix(cut_N),
        similarity_QK=first.matrix(first.floats("similarity")),
        items=first.ids(),
    )


def _check_heard(sources: Sources, query_ids: Sequence[str], positives: _Lists, candidates: _Lists) -> None:
    """Refuses a person's words about items that these queries were not scored with."""
    for row, query_id in enumerate(query_ids):
        if query_id in sources.words.rows:
            sources.check_used(query_id, {*positives.ids()[row].as_py(), *candidates.ids()[row].as_py()})


def _cut_and_label(positives: _Lists, codes_N: Codes) -> tuple[Floats, Floats]:
    """σ⁺ of each query by one judge, and the label of its positive; NaN where it has none. See `resolve.Positive`."""
    score_QP = positives.matrix(np.where(codes_N == CODE["negative"], np.nan, positives.score_N))
    affirmed_Q = np.bincount(positives.rows_N, codes_N == CODE["match"], len(positives.sizes)) > 0
    best_Q = np.where(np.isnan(score_QP), -np.inf, score_QP).max(1)
    cut_Q = np.where(np.isinf(best_Q), np.where(affirmed_Q, 1.0, np.nan), best_Q)
    return cut_Q, np.where(affirmed_Q, 1.0, cut_Q)
