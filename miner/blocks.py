"""Score shards as matrices, for arithmetic over many queries at once: what `stand` makes of one query, for thousands.

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

from miner.calibration import chances
from miner.choice_settings import ScoreFolders
from miner.sources import Sources
from unijudge.scores import SCORES, ScoreManifest, present_shards, shard_path
from unijudge.triples import Scale

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
QUERIES_IN_BLOCK = 4096


@dataclass(frozen=True)
class Block:
    """Some queries. NaN where there is no number."""

    query_ids: list[str]
    overridden_Q: Bools
    """A person left no positive, or wants no row."""
    trusted_Q: Bools
    """A person says that the positive is one."""
    positive_Q: Floats
    """The score of the row's positive."""
    rank_QK: Floats
    """Of every candidate, with a verdict or without."""
    score_QK: Floats
    """Of those that may be chosen."""
    ceiling_QK: Floats
    """σ⁺ by the same judge; infinite where a person overruled it."""
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
    unheard = set(sources.said)
    for rows, table in small.tables():
        tables = [table, *(_beside(table, large.of(rows)) for large in rest)]
        block = _block(sources, tables)
        unheard -= set(block.query_ids)
        yield block
    if unheard and not settings.partial:
        sources.check_heard(min(unheard), None)


class _Folder:
    """A score folder as tables."""

    def __init__(self, folder: Path, manifest: ScoreManifest, *, partial: bool):
        self._folder, self._manifest = folder, manifest
        self._shards = present_shards(folder, manifest, partial=partial)

    def tables(self) -> Iterator[tuple[range, pa.Table]]:
        """Corpus rows from first to last, and the table of those that are there."""
        together = max(1, QUERIES_IN_BLOCK // self._manifest.queries_in_shard)
        for place in range(0, len(self._shards), together):
            shards = self._shards[place : place + together]
            rows = range(self._manifest.rows(shards[0]).start, self._manifest.rows(shards[-1]).stop)
            yield rows, self._whole(shards)

    def of(self, rows: range) -> pa.Table:
        """The table of all shards with any of these rows."""
        inside = (self._manifest.rows(shard) for shard in self._shards)
        overlaps = [shard.start < rows.stop and rows.start < shard.stop for shard in inside]
        return self._whole([shard for shard, overlap in zip(self._shards, overlaps, strict=True) if overlap])

    def _whole(self, shards: Sequence[int]) -> pa.Table:
        read = (SCORES.whole(shard_path(self._folder, n), self._manifest.stamp(n)) for n in shards)
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

    def ids(self) -> pa.ListArray:
        """The items' ids, as the lists had them."""
        ends = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int32)
        return pa.ListArray.from_arrays(ends, self._pairs.field("item_id"))

    @cached_property
    def names(self) -> pa.Array:
        """What names each pair within the block: its row and its item."""
        return pc.binary_join_element_wise(pa.array(self.rows_N).cast(pa.string()), self._pairs.field("item_id"), "/")

    def said(self, names: list[str]) -> Bools:
        """Which of the pairs have one of these names."""
        if not names:
            return np.zeros(len(self.rows_N), bool)
        return pc.is_in(self.names, value_set=pa.array(names)).to_numpy(zero_copy_only=False)


def _beside(small: pa.Table, large: pa.Table) -> pa.Table:
    """The second judge's rows of the first one's queries, in their order; empty ones where it has none."""
    return large.take(pc.index_in(small["query_id"], value_set=large["query_id"].combine_chunks()))


def _block(sources: Sources, tables: Sequence[pa.Table]) -> Block:
    query_ids = tables[0]["query_id"].to_pylist()
    positives = [_Lists(t["positives"], scale) for t, scale in zip(tables, sources.scales, strict=True)]
    candidates = [_Lists(t["candidates"], scale) for t, scale in zip(tables, sources.scales, strict=True)]
    said = _said(sources, query_ids, positives[0], candidates[0])
    bests_Q, trusts_Q = zip(*(_best(lists, said) for lists in positives), strict=True)
    first, at = candidates[0], candidates[0].rows_N
    score_N, ceiling_N = first.score_N, bests_Q[0][at]
    for again, best_Q in zip(candidates[1:], bests_Q[1:], strict=True):
        again_N = np.full_like(score_N, np.nan)
        places = pc.index_in(again.names, value_set=first.names)
        if places.null_count:
            raise sources.no_cascade()
        again_N[places.to_numpy(zero_copy_only=False).astype(np.int64)] = again.score_N
        decides_N = ~np.isnan(again_N) & ~np.isnan(best_Q[at])
        score_N, ceiling_N = np.where(decides_N, again_N, score_N), np.where(decides_N, best_Q[at], ceiling_N)
    score_N = np.where(np.isnan(ceiling_N) | first.said(said["match"]), np.nan, score_N)
    has_large_Q = ~np.isnan(bests_Q[-1])
    denied_Q = np.bincount(positives[0].rows_N, positives[0].said(said["negative"]), len(query_ids))
    rank_N = first.floats("rank")
    return Block(
        query_ids=query_ids,
        overridden_Q=np.array([None in sources.said.get(query_id, {}) for query_id in query_ids])
        | ((denied_Q == positives[0].sizes) & (denied_Q > 0)),
        trusted_Q=np.where(has_large_Q, trusts_Q[-1], trusts_Q[0]),
        positive_Q=np.where(has_large_Q, bests_Q[-1], bests_Q[0]),
        rank_QK=first.matrix(np.where(np.isnan(rank_N), first.places_N, rank_N)),
        score_QK=first.matrix(score_N),
        ceiling_QK=first.matrix(np.where(first.said(said["negative"]), np.inf, ceiling_N)),
        similarity_QK=first.matrix(first.floats("similarity")),
        items=first.ids(),
    )


def _said(sources: Sources, query_ids: Sequence[str], positives: _Lists, candidates: _Lists) -> dict[str, list[str]]:
    """Verdict → the names of the pairs that a person gave it."""
    found: dict[str, list[str]] = {"match": [], "negative": [], "drop": []}
    for row, query_id in enumerate(query_ids):
        if query_id in sources.said:
            items = {*positives.ids()[row].as_py(), *candidates.ids()[row].as_py()}
            sources.check_heard(query_id, items)
            for item_id, verdict in sources.said[query_id].items():
                found[verdict].append(f"{row}/{item_id}")
    return found


def _best(positives: _Lists, said: dict[str, list[str]]) -> tuple[Floats, Bools]:
    """The best positive's score of each query, and whether a person trusts it."""
    score_QP = positives.matrix(np.where(positives.said(said["negative"]), np.nan, positives.score_N))
    trusted_QP = positives.matrix(positives.said(said["match"])) == 1
    best_Q = np.where(np.isnan(score_QP), -np.inf, score_QP).argmax(1)[:, None]
    return np.take_along_axis(score_QP, best_Q, 1)[:, 0], np.take_along_axis(trusted_QP, best_Q, 1)[:, 0]
