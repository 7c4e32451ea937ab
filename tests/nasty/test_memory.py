"""What an import holds in memory does not grow with the file, however its row groups are made."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LIMIT = 100_000_000


def test_kind_a13_a_row_group_of_any_size_is_read_in_pieces(tmp_path):
    """150 MB of pictures in one row group; a page, which is read as a whole, holds ten of them."""
    generator = np.random.default_rng(0)
    pictures = pa.array([generator.bytes(100_000) for _ in range(1500)], pa.binary())
    table = pa.table({"query_image": pictures, "positive_text": [f"caption {number}" for number in range(1500)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1500, write_batch_size=10)
    command = [sys.executable, "-m", "tests.nasty.run_reading", str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, above = map(int, done.stdout.split())
    assert rows == 1500
    assert above < LIMIT
