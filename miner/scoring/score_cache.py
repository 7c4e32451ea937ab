"""Looks up verdicts of earlier jobs by content, in folders of scores by the same judge.

The key of a pair is the content hashes of its query and its item. So a job with a larger k, a different pool, more
queries or a different corpus asks only about pairs without a verdict. Pairs with errors are asked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from unijudge.errors import JudgeChanged
from unijudge.formats.parts import part_path
from unijudge.formats.scores import SCORES, Judged, ScoreManifest
from unijudge.formats.tables import reading
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.storage.files import read_json

GROUPS_IN_MEMORY = 1024
"""Row groups in the cache. A group has 64 queries: with fifty candidates and a positive, 64 · 51 · 33 bytes."""
QUESTIONS_IN_MEMORY = 64


def check_reuse(folders: Sequence[Path], judge: JudgeIdentity) -> list[ScoreManifest]:
    """Returns the manifests of folders to reuse, and checks their judge.

    Raises:
        JudgeChanged: A folder was scored by a different judge.
        DataError: A folder is missing, or is no folder of scores.
    """
    manifests = [read_json(folder / "manifest.json", ScoreManifest) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.judge != judge:
            raise JudgeChanged(
                f"{folder}: cannot be reused, because it was scored by {manifest.judge} and the service runs {judge}. "
                "Leave this folder out, or start its judge again"
            )
    return manifests


class ScoreCache:
    """The verdicts in the written shards of some folders. The index takes 24 bytes for each query."""

    def __init__(self, folders: Sequence[Path], judge: JudgeIdentity):
        """Reads the query keys of all shards.

        Raises:
            JudgeChanged: A folder was scored by a different judge.
            DataError: A folder or a shard is missing, truncated or of a different job.
        """
        self._files: list[tuple[Path, str]] = []
        for folder, manifest in zip(folders, check_reuse(folders, judge), strict=True):
            missing = set(manifest.parts.missing(folder))
            for shard in range(len(manifest.parts)):
                if shard not in missing:
                    self._files.append((part_path(folder, shard), manifest.stamp(shard)))

        # A query is found by its key, in a row group of a file. The empty arrays give the types without a file.
        keys = [np.empty(0, "S16")]
        places = [np.empty((0, 2), np.int32)]
        for number, file in enumerate(self._files):
            for group, column in enumerate(self._keys(*file)):
                keys.append(column)
                places.append(np.tile(np.array([number, group], np.int32), (len(column), 1)))

        # Sorted keys are found by binary search.
        all_keys = np.concatenate(keys)
        order = np.argsort(all_keys, kind="stable")
        self._sorted = all_keys[order]
        self._places = np.concatenate(places)[order]
        self._group = lru_cache(GROUPS_IN_MEMORY)(self._read_group)
        self._of = lru_cache(QUESTIONS_IN_MEMORY)(self._read)

    def __len__(self) -> int:
        return len(self._sorted)

    def of(self, query_key: bytes) -> Mapping[bytes, Judged]:
        """Returns item_key → verdict for a query. The verdicts have no item id, rank or similarity.

        Reads every row with this query. Call this once for all rows with the same query.
        """
        return self._of(query_key)

    def _read(self, query_key: bytes) -> dict[bytes, Judged]:
        left, right = (
            np.searchsorted(self._sorted, np.bytes_(query_key), side) for side in ("left", "right")
        )
        found: dict[bytes, Judged] = {}
        for file, group in np.unique(self._places[left:right], axis=0).tolist():
            found |= self._group(file, group).of(query_key)
        return found

    def _read_group(self, number: int, group: int) -> "_Group":
        path, stamp = self._files[number]
        return _Group.read(SCORES.group(path, group, stamp))

    @staticmethod
    def _keys(path: Path, stamp: str) -> list[npt.NDArray[np.bytes_]]:
        with SCORES.open(path, stamp) as file, reading(path):
            columns = [
                file.read_row_group(group, columns=["query_key"])["query_key"]
                for group in range(file.num_row_groups)
            ]
        return [np.array(column.to_pylist(), "S16") for column in columns]


@dataclass(frozen=True)
class _Group:
    """The verdicts of a row group as columns of N pairs. Objects are made only for rows that are looked up."""

    query_keys: list[bytes]
    """The query key of each row."""
    rows_N: npt.NDArray[np.int64]
    """The row of each pair, ascending."""
    item_keys_N: npt.NDArray[np.void]
    yes_N: npt.NDArray[np.float32]
    no_N: npt.NDArray[np.float32]
    labels_N: npt.NDArray[np.int8]
    """Whether the most likely answer was a label; −1: unknown."""

    @classmethod
    def read(cls, table: pa.Table) -> "_Group":
        """Reads the columns of a row group."""
        positives = _pairs(table["positives"].combine_chunks())
        candidates = _pairs(table["candidates"].combine_chunks())
        both = [np.concatenate(columns) for columns in zip(positives, candidates, strict=True)]

        # Pairs without a verdict are left out. The others are sorted by row, so that a row is a slice.
        rows_N, _, yes_N, no_N, _ = both
        judged = np.flatnonzero(~np.isnan(yes_N) & ~np.isnan(no_N))
        order = judged[np.argsort(rows_N[judged], kind="stable")]
        return cls(table["query_key"].to_pylist(), *(column[order] for column in both))

    def of(self, query_key: bytes) -> dict[bytes, Judged]:
        """Returns the verdicts of all rows with this query."""
        found: dict[bytes, Judged] = {}
        for row, key in enumerate(self.query_keys):
            if key != query_key:
                continue
            some = slice(*np.searchsorted(self.rows_N, [row, row + 1]))
            columns = (
                self.item_keys_N[some],
                self.yes_N[some],
                self.no_N[some],
                self.labels_N[some],
            )
            for item, yes, no, label in zip(*(column.tolist() for column in columns), strict=True):
                found[item] = Judged(
                    "", item, None, None, yes, no, None if label < 0 else bool(label)
                )
        return found


def _pairs(lists: pa.Array) -> tuple[npt.NDArray[np.generic], ...]:
    """Returns the row, the item key and the verdict of each pair, with NaN for a missing verdict."""
    judged = pc.list_flatten(lists)
    keys = pc.struct_field(judged, "item_key")
    labels = pc.fill_null(pc.struct_field(judged, "argmax_is_label").cast(pa.int8()), -1)
    yes, no = (
        pc.struct_field(judged, name).to_numpy(zero_copy_only=False)
        for name in ("yes_logprob", "no_logprob")
    )
    # The type is void, because numpy strips trailing zeros from bytes.
    keys_N = np.frombuffer(b"".join(keys.to_pylist()), "V16")
    return (
        pc.list_parent_indices(lists).to_numpy(),
        keys_N,
        yes,
        no,
        labels.to_numpy(zero_copy_only=False),
    )
