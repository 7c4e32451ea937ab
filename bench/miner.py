"""Measures the miner: a scoring job of a million pairs, and retrieval compared with sentence-transformers.

    .venv/bin/python bench/miner.py score        the job, compared with one pair per request to the same service
    .venv/bin/python bench/miner.py retrieve     retrieval by both libraries, on the same vectors

Texts and vectors are generated, and the scripted judge runs behind Ray Serve. So the benchmark measures the miner, HTTP
and the service around a judge, and not a judge. Each way runs in a separate process. Memory is the peak memory of the
process. For retrieval, the memory after the imports is subtracted.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, which contains a miner.py

from bench.made_up import UNIJUDGE, make_vectors, sentence, serving
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus


def make(folder: Path, queries: int, width: int) -> None:
    """Writes a corpus of texts, and its vectors."""
    dice = random.Random(1)  # noqa: S311  reproducible, not secret
    items = [Item(f"i{n}", ("p",), text=f"{n}: " + sentence(dice, 9)) for n in range(queries)]
    asked = [
        Query(f"q{n}", "p", (f"i{n}",), text=f"find {n}: " + sentence(dice, 7))
        for n in range(queries)
    ]
    write_corpus(folder / "corpus", items, asked, images=folder, rejects=0, source="made up")
    make_vectors(folder / "corpus", folder / "vectors", width)


def watched(
    command: list[Any], environment: dict[str, str] | None = None
) -> tuple[float, float, str]:
    """Runs a command. Returns its seconds, its peak memory in MB, and its output."""
    most = 0.0
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )

    def watch() -> None:
        nonlocal most
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.poll() is None:
                most = max(most, psutil.Process(process.pid).memory_info().rss / 1e6)
                time.sleep(0.1)

    watching = threading.Thread(target=watch)
    watching.start()
    printed, _ = process.communicate()
    watching.join()
    if process.returncode:
        sys.exit(printed)
    return time.perf_counter() - begun, most, printed


def bench_score(queries: int) -> None:
    """Compares the job with one pair per request, with the same service."""
    with tempfile.TemporaryDirectory() as scratch, serving() as url:
        folder = Path(scratch)
        make(folder, queries, 64)
        settings = {
            "corpus": folder / "corpus",
            "vectors": folder / "vectors",
            "out": folder / "scores",
            "service": url,
        }
        command = [*UNIJUDGE, "mine", "score"]
        for name, value in settings.items():
            command += [f"{name}={value}"]
        plan = subprocess.run(
            [*UNIJUDGE, "mine", "estimate", *command[len(UNIJUDGE) + 2 :]],
            check=True,
            capture_output=True,
            text=True,
        )
        print(plan.stdout)
        seconds, most, printed = watched(command)
        pairs = int(re.search(r"This run wrote (\d+) pairs", printed)[1])  # type: ignore[index]
        rate = float(re.search(r"([\d.]+) pairs/s", printed.splitlines()[-1])[1])  # type: ignore[index]
        alone = asyncio.run(one_pair_a_request(url, folder, 2000))
        print("| way | pairs | pairs/s | ratio | memory, MB |\n|---|---|---|---|---|")
        print(f"| one pair per request, 16 in flight | 2000 | {alone:.0f} | 1.00 | |")
        print(f"| `unijudge mine score` | {pairs} | {rate:.0f} | {rate / alone:.2f} | {most:.0f} |")
        print(f"\nwhole command, including its start and the retrieval: {seconds:.0f} s")


async def one_pair_a_request(url: str, folder: Path, pairs: int) -> float:
    """Returns the pairs per second with one pair per request."""
    from unijudge.client.client import JudgeClient

    corpus = Corpus(folder / "corpus")
    room = asyncio.Semaphore(16)

    async def ask(judge: JudgeClient, number: int) -> None:
        async with room:
            query, item = (
                corpus.queries[number % len(corpus.queries)],
                corpus.items[-number % len(corpus.items)],
            )
            await judge.judge(corpus.content(query), [corpus.content(item)])

    async with JudgeClient(url) as judge:
        begun = time.perf_counter()
        await asyncio.gather(*(ask(judge, number) for number in range(pairs)))
        return pairs / (time.perf_counter() - begun)


Read = Callable[[], list[list[int]]]
"""Returns the rows of the candidates, for each query."""


def retrieve_unijudge(folder: Path, k: int) -> Callable[[], Read]:
    """Opens the retrieval of unijudge, which writes a folder of candidates."""
    import faiss  # noqa: F401  loaded before the clock starts

    from miner.retrieval.candidates import find_candidates
    from miner.settings import RetrievalSettings
    from unijudge.formats.candidates import CandidateManifest
    from unijudge.formats.vectors import VectorFolder

    def run() -> Read:
        corpus = Corpus(folder / "corpus")
        settings = RetrievalSettings(corpus=folder / "corpus", k=k)
        manifest = CandidateManifest(
            corpus=corpus.fingerprint,
            vectors="",
            queries=len(corpus.queries),
            k=k,
            pool="global",
            retrieval={},
        )
        vectors = VectorFolder(folder / "vectors", corpus)
        found = find_candidates(folder / "candidates", manifest, corpus, vectors, settings)
        return lambda: [near.items for near in found.of(range(len(corpus.queries)))]

    return run


def retrieve_sentence_transformers(folder: Path, k: int) -> Callable[[], Read]:
    """Opens `mine_hard_negatives` of sentence-transformers, with the same vectors instead of a model."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    from unijudge.formats.vectors import VectorFolder

    class Vectors:
        """A replacement for a model: returns the stored vectors of the texts."""

        device = "cpu"

        def __init__(self) -> None:
            corpus = Corpus(folder / "corpus")
            stored = VectorFolder(folder / "vectors", corpus)
            self.rows = {
                entry.text: (kind, n)
                for kind in ("queries", "items")
                for n, entry in enumerate(getattr(corpus, kind))
            }
            self.vectors = {kind: stored.whole(kind) for kind in ("queries", "items")}

        def encode_query(self, texts: list[str], **_: Any) -> Any:
            kind = self.rows[texts[0]][0]
            return self.vectors[kind][[self.rows[text][1] for text in texts]]

        encode_document = encode = encode_query

        def similarity_pairwise(self, left: Any, right: Any) -> Any:
            import torch

            return (torch.as_tensor(left) * torch.as_tensor(right)).sum(-1)

        def get_embedding_dimension(self) -> int:
            return int(self.vectors["items"].shape[1])

    def run() -> Read:
        model: Any = Vectors()
        corpus = Corpus(folder / "corpus")
        texts = [item.text for item in corpus.items]
        rows = {"query": [query.text for query in corpus.queries], "positive": texts}
        mined = mine_hard_negatives(
            Dataset.from_dict(rows), model, corpus=texts, num_negatives=k, absolute_margin=0.0, use_faiss=True,
             output_format="n-tuple", verbose=False,
        )  # fmt: skip

        def read() -> list[list[int]]:
            place = {text: number for number, text in enumerate(texts)}
            found: dict[str | None, list[int]] = {text: [] for text in rows["query"]}
            for row in mined:
                found[row["query"]] = [place[row[f"negative_{n}"]] for n in range(1, k + 1)]
            return list(found.values())

        return read

    return run


WAYS = {"unijudge": retrieve_unijudge, "sentence-transformers": retrieve_sentence_transformers}


def bench_retrieve(queries: int, width: int, k: int) -> None:
    """Compares both ways on the same vectors, each in a separate process."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder, queries, width)
        measured = {}
        for way in WAYS:
            command = [
                sys.executable,
                __file__,
                "one",
                "--way",
                way,
                "--folder",
                folder,
                "--k",
                str(k),
            ]
            *_, printed = watched(command)
            measured[way] = json.loads(re.findall(r"^RESULT (.*)$", printed, re.MULTILINE)[-1])
        ours, theirs = (json.loads((folder / f"{way}.json").read_text()) for way in WAYS)
        full = [
            (one, other) for one, other in zip(ours, theirs, strict=True) if len(one) == k and other
        ]
        same = np.mean([len(set(one) & set(other)) / k for one, other in full])
        print(
            f"{queries} queries and items of {width} dimensions, the {k} most similar below the positive\n"
        )
        print("| way | seconds | ratio | memory, MB | ratio |\n|---|---|---|---|---|")
        base = measured["sentence-transformers"]
        for way, one in measured.items():
            grown, other = one["most"] - one["before"], base["most"] - base["before"]
            times, room = one["seconds"] / base["seconds"], grown / other
            print(f"| {way} | {one['seconds']:.1f} | {times:.2f} | {grown:.0f} | {room:.2f} |")
        print(f"\nequal candidates in {len(full)} queries for which both found {k}: {same:.4%}")
        full_ours, full_theirs = sum(len(one) == k for one in ours), sum(map(bool, theirs))
        print(
            f"queries with {k} candidates: unijudge {full_ours}, sentence-transformers {full_theirs}"
        )


def run_one(way: str, folder: Path, k: int) -> None:
    """Measures one way in this process."""
    run = WAYS[way](folder, k)
    before = psutil.Process().memory_info().rss / 1e6
    begun = time.perf_counter()
    read = run()
    seconds = time.perf_counter() - begun
    most = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3  # type: ignore[index]
    (folder / f"{way}.json").write_text(json.dumps(read()))
    print("RESULT " + json.dumps({"seconds": seconds, "before": before, "most": most}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["score", "retrieve", "one"])
    parser.add_argument("--queries", type=int)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--way")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.what == "score":
        bench_score(options.queries or 20_000)
    elif options.what == "retrieve":
        bench_retrieve(options.queries or 50_000, options.width, options.k)
    else:
        run_one(options.way, options.folder, options.k)
