"""A large import does not keep its rows in memory."""

import subprocess
import sys


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """The last 90,000 of 120,000 rows would need over 120 MB in memory."""
    command = [sys.executable, "-m", "tests.miner.run_import", "120000", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    early, late = map(int, done.stdout.split())
    assert late - early < 80 * 2**20
    assert [path.name for path in tmp_path.iterdir() if path.name != ".corpus.lease"] == ["corpus"]
