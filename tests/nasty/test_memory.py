"""The memory of an import does not grow with the file, for any size of row groups."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unijudge.foreign import tables

MEGABYTE = 10**6


@pytest.mark.parametrize(
    ("rows", "size", "in_page", "limit"),
    [(1500, 100_000, 10, 100), (6250, 80_000, 1024, 300)],
    ids=["150 MB in pages of 1 MB", "500 MB as pyarrow writes it: pages of 82 MB"],
)
def test_a_row_group_of_any_size_is_read_in_pieces(rows, size, in_page, limit, tmp_path):
    """A page is read as a whole. pyarrow holds a page twice, and a third time if it takes the page for a dictionary."""
    generator = np.random.default_rng(0)
    pictures = pa.array([generator.bytes(size) for _ in range(rows)], pa.binary())
    table = pa.table(
        {"query_image": pictures, "positive_text": [f"caption {number}" for number in range(rows)]}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=rows, write_batch_size=in_page)
    del table, pictures
    command = [sys.executable, "-m", "tests.nasty.run_reading", str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, above = map(int, done.stdout.split())
    assert found == rows
    assert above < limit * MEGABYTE


@pytest.mark.parametrize(("rows_in_group", "told"), [(64, True), (16, False)])
def test_large_pages_are_reported_with_their_cure(
    rows_in_group, told, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(tables, "LARGE_PAGE", 3_000_000)
    pictures = pa.array([bytes([number]) * 100_000 for number in range(64)], pa.binary())
    pq.write_table(
        pa.table({"query_image": pictures}), tmp_path / "a.parquet", row_group_size=rows_in_group
    )
    assert sum(1 for _ in tables.parquet_rows(tmp_path / "a.parquet")) == 64
    assert ("its pages have up to about 6 MB" in caplog.text) == told
    assert ("row_group_size" in caplog.text) == told
