"""Measures import, estimate and select on data with many rows per question, at two sizes, in separate processes.

    .venv/bin/python bench/repeats.py --rows 12500 50000

There are four kinds of data. `question`: all rows have the same question, and each row has its own item (as a label
with its images). `labels`: ten questions. `questions`: five hundred questions in random order. `id`: all rows have the
same query_id, so they are one query with that many positives. A fifth as many rows with unique questions are added.

The judge is scripted. The scores that `select` and `plan, reuse` read are generated, because only the time of the miner
counts. A command whose time grows with the square of the rows takes sixteen times as long for four times the rows.
"""

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, which contains a miner.py

from bench.made_up import make_vectors, sentence, serving
from unijudge.client.client import JudgeClient
from unijudge.formats.candidates import CandidateFolder
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, write_shard
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.storage.files import publish_json

KINDS = ("question", "labels", "questions", "id")
QUESTIONS = 500
COMMAND = [sys.executable, "-m", "unijudge"]
QUERIES_IN_SHARD = 256


def write_pairs(path: Path, rows: int, kind: str) -> None:
    """Writes the rows of a data set."""
    dice = random.Random(1)  # noqa: S311  reproducible, not secret
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            asks = "what is it?"
            if kind in ("labels", "questions"):
                asks = f"label {number % 10 if kind == 'labels' else dice.randrange(QUESTIONS)}"
            row = {
                "query_text": asks,
                "positive_text": f"{number}: {sentence(dice, 9)}",
                "subset": "many",
            }
            file.write(json.dumps(row | ({"query_id": "one"} if kind == "id" else {})) + "\n")
        for number in range(rows // 5):
            row = {
                "query_text": f"find {number}",
                "positive_text": f"own {number}: {sentence(dice, 9)}",
            }
            file.write(json.dumps(row | {"subset": "own"}) + "\n")


async def judge_at(url: str) -> JudgeIdentity:
    """Returns the identity of the judge at a URL."""
    async with JudgeClient(url) as judge:
        return judge.identity


def made_up_scores(
    folder: Path, corpus: Corpus, candidates: CandidateFolder, judge: JudgeIdentity
) -> None:
    """Writes a folder of generated scores for the candidates."""
    numbers = np.random.default_rng(0)
    plan = ScoreManifest(
        corpus=corpus.fingerprint, vectors=None, queries=len(corpus.queries), shard_size=QUERIES_IN_SHARD,
        k=candidates.manifest.k, pool="global", judge=judge,
    )  # fmt: skip
    publish_json(folder / "manifest.json", plan)
    items = [(item.item_id, item.key) for item in corpus.items]

    def judged(item: int, rank: int | None) -> Judged:
        odds = float(numbers.normal(2 if rank is None else -1))
        return Judged(
            *items[item], rank, 0.5, -float(np.log1p(np.exp(-odds))), -float(np.log1p(np.exp(odds)))
        )

    for shard in range(len(plan.parts)):
        found = zip(
            plan.parts.rows_of(shard), candidates.of(plan.parts.rows_of(shard)), strict=True
        )
        judgements = []
        for row, near in found:
            query = corpus.queries[row]
            right = [judged(item, None) for item in corpus.positives(row).tolist()]
            wrong = [judged(item, rank) for rank, item in enumerate(near.items)]
            judgements.append(JudgedQuery(query.query_id, query.subset, query.key, right, wrong))
        write_shard(folder, plan, shard, judgements)


@dataclass(frozen=True)
class Seconds:
    """The wall-clock time and the CPU time of a command. CPU time is more reliable on a shared machine."""

    clock: float
    processors: float

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.clock + other.clock, self.processors + other.processors)

    def __str__(self) -> str:
        return f"{self.clock:.1f} ({self.processors:.1f})"


def seconds_of(words: list[str], program: str = "mine") -> Seconds:
    """Runs one command and returns its seconds."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*COMMAND, program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(time.perf_counter() - begun, used)


def measure(kind: str, rows: int, width: int, url: str, *, evaluate: bool) -> dict[str, Seconds]:
    """Returns the seconds of each command, and of import, estimate and select together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.jsonl", rows, kind)
        took = {
            "import": seconds_of(
                ["import", "pairs", str(folder / "pairs.jsonl"), str(folder / "corpus")]
            )
        }
        make_vectors(folder / "corpus", folder / "vectors", width)
        common = [f"corpus={folder / 'corpus'}"]
        job = [*common, f"vectors={folder / 'vectors'}", f"out={folder / 'plan'}"]
        took["plan"] = seconds_of(["estimate", *job, f"service={url}"])
        corpus, judge = Corpus(folder / "corpus"), asyncio.run(judge_at(url))
        made_up_scores(
            folder / "scores", corpus, CandidateFolder(folder / "plan" / "candidates"), judge
        )
        chosen = [*common, f"scores={folder / 'scores'}"]
        took["select"] = seconds_of(["select", *chosen, f"out={folder / 'triples'}"])
        took["the three"] = took["import"] + took["plan"] + took["select"]
        known = [f"reuse={folder / 'scores'}"]  # the candidates exist already
        took["plan, reuse"] = seconds_of(["estimate", *job, f"service={url}", *known])
        random_walk = [*chosen, "preset=random", f"out={folder / 'random'}"]
        took["select, preset random"] = seconds_of(["select", *random_walk])
        if evaluate:
            measured = [*common, f"vectors={folder / 'vectors'}", f"out={folder / 'evaluation'}"]
            took["evaluate"] = seconds_of(["evaluate", *measured], "train")
    return took


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs=2, default=[12_500, 50_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="also run `train evaluate`, which ranks all items for each row",
    )
    options = parser.parse_args()
    small, large = options.rows
    with serving() as url:
        print("Wall-clock seconds (CPU seconds). The ratio compares CPU seconds.\n")
        print(
            f"| kind of data | command | {small:,} rows | {large:,} rows | ratio |\n|---|---|---|---|---|"
        )
        for kind in options.kinds:
            before, after = (
                measure(kind, rows, options.width, url, evaluate=options.evaluate)
                for rows in (small, large)
            )
            for name, one in before.items():
                ratio = after[name].processors / one.processors
                print(f"| {kind} | {name} | {one} | {after[name]} | {ratio:.1f} |", flush=True)
