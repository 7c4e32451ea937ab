"""Parquet tables: damaged tables are detected, and a failure of the disk is not reported as a damaged file."""

import pytest

from unijudge.content import content_key
from unijudge.errors import DataError
from unijudge.formats.corpus import QUERIES
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, read_scores, write_shard
from unijudge.formats.tables import ROWS_AT_ONCE
from unijudge.formats.triples import TRIPLES
from unijudge.storage.files import publish_json


def judged(item, rank=0, yes=-0.5):
    return Judged(item, content_key(item, None), rank, 0.5, yes, -1.0)


def test_only_a_torn_file_is_to_be_deleted(tmp_path, monkeypatch):
    """If a disk or a store refuses a read, the file may still be complete."""
    path = tmp_path / "rows.parquet"
    TRIPLES.write(path, [])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        DataError, match=r"rows\.parquet: not a whole Parquet file, or damaged .*Delete it"
    ):
        list(TRIPLES.read(path))
    for refusal in (
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        RuntimeError("throttled"),
    ):

        def refuse(path, refusal=refusal):
            raise refusal

        monkeypatch.setattr("unijudge.formats.tables.open_parquet", refuse)
        with pytest.raises(DataError, match=r"rows\.parquet: cannot be read") as caught:
            list(TRIPLES.read(path))
        assert "delete" not in str(caught.value).lower()


def test_a_flipped_byte_is_noticed(tmp_path, identity):
    """The byte is inside the pages, and every page has a checksum."""
    rows = [
        JudgedQuery(
            f"q{n}",
            "s",
            bytes(16),
            [judged("p", None)],
            [judged(f"i{n}-{rank}", rank) for rank in range(9)],
        )
        for n in range(50)
    ]
    plan = ScoreManifest(
        corpus="c", vectors="v", queries=50, shard_size=50, k=9, pool="global", judge=identity
    )
    publish_json(tmp_path / "s" / "manifest.json", plan)
    write_shard(tmp_path / "s", plan, 0, rows)
    assert list(read_scores(tmp_path / "s")) == rows
    path = tmp_path / "s" / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"part-00000\.parquet: .*damaged"):
        list(read_scores(tmp_path / "s"))


def test_rows_are_read_in_small_batches(tmp_path):
    """The size of the row groups does not matter: a reader of one row holds a few thousand rows."""
    path = tmp_path / "q.parquet"
    QUERIES.write(
        path,
        ({"query_id": f"{n}", "subset": "s", "positive_ids": ["i"]} for n in range(20_000)),
        rows_in_group=20_000,
    )
    rows = QUERIES.read(path)
    next(rows)
    assert len(rows.gi_frame.f_locals["batch"]) == ROWS_AT_ONCE
