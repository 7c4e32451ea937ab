"""Verdicts that need not be asked for again: found by content, in folders of scores by the same judge.

A pair is known by the content hashes of its query and its item, so a larger k, another pool, more queries or another
corpus ask only for pairs that nobody scored. Errors are asked again.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unijudge.errors import JudgeChanged
from unijudge.files import read_json
from unijudge.scores import SCORES, Judged, ScoreManifest, missing_shards, shard_path
from unijudge.tables import reading
from unijudge.verdicts import JudgeIdentity

GROUPS_IN_MEMORY = 64
QUESTIONS_IN_MEMORY = 64


def check_reuse(folders: Sequence[Path], judge: JudgeIdentity) -> list[ScoreManifest]:
    """The manifests of folders whose scores are to be reused.

    Raises:
        JudgeChanged: A folder was scored by another judge.
        DataError: A folder is missing or foreign.
    """
    manifests = [read_json(folder / "manifest.json", ScoreManifest) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.judge != judge:
            raise JudgeChanged(
                f"{folder}: cannot be reused: it was scored by {manifest.judge}, but now {judge} answers; leave it "
                "out, or start that judge again"
            )
    return manifests


class KnownScores:
    """The finished shards of some folders, indexed by query: 24 bytes each."""

    def __init__(self, folders: Sequence[Path], judge: JudgeIdentity):
        """Reads the query keys of all shards.

        Raises:
            JudgeChanged: A folder was scored by another judge.
            DataError: A folder or a shard is missing, torn or foreign.
        """
        self._files: list[tuple[Path, str]] = []
        keys, files, groups = [], [], []
        for folder, manifest in zip(folders, check_reuse(folders, judge), strict=True):
            for shard in sorted(set(range(manifest.shards)) - set(missing_shards(folder, manifest))):
                self._files.append((shard_path(folder, shard), manifest.stamp(shard)))
                for group, column in enumerate(self._keys(*self._files[-1])):
                    keys.append(column)
                    files.append(np.full(len(column), len(self._files) - 1, np.int32))
                    groups.append(np.full(len(column), group, np.int32))
        all_keys = np.concatenate(keys) if keys else np.empty(0, "S16")
        order = np.argsort(all_keys, kind="stable")
        self._sorted = all_keys[order]
        self._places = np.stack([np.concatenate(files), np.concatenate(groups)], 1)[order] if keys else np.empty((0, 2))
        self._group = lru_cache(GROUPS_IN_MEMORY)(self._read_group)
        self._of = lru_cache(QUESTIONS_IN_MEMORY)(self._read)

    def __len__(self) -> int:
        return len(self._sorted)

    def of(self, query_key: bytes) -> Mapping[bytes, Judged]:
        """What is known of a query: item_key → its verdict; rows that ask one question share the answer."""
        return self._of(query_key)

    def _read(self, query_key: bytes) -> dict[bytes, Judged]:
        left, right = (np.searchsorted(self._sorted, np.bytes_(query_key), side) for side in ("left", "right"))
        found: dict[bytes, Judged] = {}
        for file, group in np.unique(self._places[left:right], axis=0).tolist():
            found |= self._group(file, group).get(query_key, {})
        return found

    def _read_group(self, number: int, group: int) -> dict[bytes, dict[bytes, Judged]]:
        found: dict[bytes, dict[bytes, Judged]] = {}
        path, stamp = self._files[number]
        for row in SCORES.group(path, group, stamp).to_pylist():
            judged = [Judged(**one) for one in [*row["positives"], *row["candidates"]]]
            verdicts = {one.item_key: one for one in judged if one.log_odds is not None}
            found.setdefault(row["query_key"], {}).update(verdicts)
        return found

    @staticmethod
    def _keys(path: Path, stamp: str) -> list[npt.NDArray[np.bytes_]]:
        with SCORES.open(path, stamp) as file, reading(path):
            columns = [
                file.read_row_group(group, columns=["query_key"])["query_key"] for group in range(file.num_row_groups)
            ]
        return [np.array(column.to_pylist(), "S16") for column in columns]
