"""A damaged footer of a Parquet file: the file is read or refused, and the process survives."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


def test_no_changed_byte_of_a_footer_ends_the_process(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"query_text": ["a", "b"] * 4, "positive_text": ["c", None] * 4}),
        path,
        store_schema=False,
    )
    length = int.from_bytes(path.read_bytes()[-8:-4], "little")
    command = [sys.executable, "-m", "tests.nasty.run_footers", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split()[-2:])
    assert read + refused == 3 * length
    assert refused > length / 4
