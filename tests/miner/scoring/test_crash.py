"""A job that dies, or that meets a disk fault, at any of its writes: every pair is scored once, and no file is
incomplete.
"""

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from miner.scoring.job import score
from tests.miner.conftest import quiet, serving
from tests.miner.counting import Counting
from tests.miner.run_score import before_each_operation
from unijudge.errors import DataError
from unijudge.formats.inventory import check
from unijudge.formats.scores import read_scores
from unijudge.storage import files

SHARD, IN_FLIGHT = 24, 4


@pytest.fixture
def small(job):
    return lambda url, **changes: job(
        url, shard_size=SHARD, max_in_flight=IN_FLIGHT, k=5, **changes
    )


def pairs_of(folder):
    return Counter(
        (row.query_id, one.item_id)
        for row in read_scores(folder)
        for one in [*row.positives, *row.candidates]
    )


def test_a_job_killed_at_any_write_loses_and_duplicates_nothing(small, tmp_path):
    """The job is killed by SIGKILL at every fsync and every rename. Then the same command runs again."""
    judge = Counting()
    with serving(judge) as url:
        settings = small(url)
        whole = score(small(url, out=tmp_path / "whole"), quiet)
        command = [sys.executable, "-m", "tests.miner.run_score"]
        text = settings.model_copy(update={"out": tmp_path / "counted"}).model_dump_json()
        number = int(
            subprocess.run([*command, text, "count"], check=True, capture_output=True).stdout
        )
        judge.pairs.clear()
        kills = subprocess.run(
            [*command, settings.model_dump_json(), "kill-at-each", str(number)],
            check=True,
            capture_output=True,
        )
    ends = [json.loads(line) for line in kills.stdout.splitlines()]
    # The writes are candidates.json and a part, manifest.json, the shards, and totals.json.
    assert len(ends) == number == 3 * (2 + 1 + whole.shards + 1)
    assert all(end["killed"] and end["end"] == 0 for end in ends)
    expected, rows = pairs_of(tmp_path / "whole"), list(read_scores(tmp_path / "whole"))
    assert set(expected.values()) == {1}
    most = max(len(row.positives) + len(row.candidates) for row in rows)
    repeated = judge.pairs.total() - number * whole.counts.asked
    # A kill costs one shard and the pairs in flight.
    assert 0 < repeated <= number * (SHARD + IN_FLIGHT) * most
    shards_left = set()
    for at, end in enumerate(ends):
        out = settings.out / str(at)
        assert list(read_scores(out)) == rows
        assert "whole" in check(out)
        assert not list(out.rglob("*.unijudge-draft"))
        finished = [int(name[5:10]) for name in end["left"] if name.startswith("part-")]
        left = [row for number, row in enumerate(rows) if number // SHARD not in finished]
        assert end["asked"] <= sum(len(row.positives) + len(row.candidates) for row in left)
        shards_left.add(len(finished))
    assert shards_left == set(range(whole.shards + 1))


def test_a_kill_costs_at_most_a_shard_and_what_is_in_flight(small, tmp_path):
    class Slow(Counting):
        """A judge that answers a query of the first shard last, so that nothing is written before.

        The test sees how far the job works ahead.
        """

        queries = set()  # noqa: RUF012  one judge

        async def judge(self, query, candidates):
            answers = await super().judge(query, candidates)
            self.queries.add(query)
            if query.text == "find 2":
                await asyncio.to_thread(over.wait, 120)
            return answers

    judge, over = Slow(), threading.Event()
    with serving(judge) as url:
        settings = small(url)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.miner.run_score", settings.model_dump_json()]
        )
        deadline = time.monotonic() + 60
        while len(judge.queries) < 1 + SHARD + IN_FLIGHT and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)  # if the job began too many queries, they would come now
        begun, written = len(judge.queries), list(settings.out.glob("part-*"))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        over.set()
    assert not written
    assert begun == 1 + SHARD + IN_FLIGHT  # the last one is the known pair of the service


@pytest.mark.parametrize(
    ("reason", "places"),
    [(errno.ENOSPC, range(21)), (errno.EIO, range(3, 18, 5)), (errno.EXDEV, range(2, 18, 5))],
)
def test_a_disk_fault_at_any_write_leaves_no_partial_file(
    small, tmp_path, reason, places, monkeypatch
):
    """One kind of fault occurs at each write, and the other kinds at some writes.

    The code is the same for all kinds.
    """
    with serving(Counting()) as url:
        for at in (*places, 3 * (3 + 4)):  # the last value is the number of all operations
            monkeypatch.setattr(files, "_sync", files._sync)
            monkeypatch.setattr(Path, "replace", Path.replace)
            settings = small(url, out=tmp_path / f"{at}")

            def fail(number, at=at):
                if number == at:
                    raise OSError(reason, os.strerror(reason))

            before_each_operation(fail)
            if at == 3 * (3 + 4):
                score(settings, quiet)
                break
            with pytest.raises(
                DataError, match=re.escape(f"cannot be written ({os.strerror(reason)})")
            ):
                score(settings, quiet)
            monkeypatch.undo()
            assert not list(settings.out.rglob("*.unijudge-draft"))
            if at % 5 == 0:
                score(settings, quiet)
                assert set(pairs_of(settings.out).values()) == {1}


def test_a_full_disk_in_the_middle_of_a_file(small, tmp_path):
    """The kernel itself refuses the bytes, because no file may be larger than a limit."""
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); import tests.miner.run_score as r; r.main()"
    with serving(Counting()) as url:
        settings = small(url)
        ended = subprocess.run(
            [sys.executable, "-c", code, settings.model_dump_json()],
            capture_output=True,
            text=True,
            check=False,
        )
        assert re.search(
            r"DataError: .*part-00000\.parquet: cannot be written \(.*File too large", ended.stderr
        )
        assert not list(settings.out.rglob("*.unijudge-draft"))
        score(settings, quiet)
    assert set(pairs_of(settings.out).values()) == {1}


def test_after_a_signal_the_running_shards_finish(small, tmp_path):
    class Held(Counting):
        async def judge(self, query, candidates):
            await asyncio.sleep(0.05)
            return await super().judge(query, candidates)

    judge = Held()
    threads = threading.active_count()  # this includes threads of earlier tests
    with serving(judge) as url:
        settings = small(url)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.miner.run_score", settings.model_dump_json()]
        )
        deadline = time.monotonic() + 60
        while judge.pairs.total() < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        finished = len(list(settings.out.glob("part-*")))
        assert 1 <= finished <= 2
        assert judge.pairs.total() == sum(
            len(row.positives) + len(row.candidates)
            for row in read_scores(settings.out, partial=True)
        )
        assert threading.active_count() < threads + 20
        score(settings, quiet)
    assert set(pairs_of(settings.out).values()) == {1}
