"""Compares the estimate of a job with its real cost, for a job as large as MMEB and the scripted judge.

    .venv/bin/python bench/mmeb_job.py [--queries 100000] [--k 10]

The data set has 20 subsets and 100,000 queries, with images in queries and candidates. The benchmark prints the
estimate of `mine estimate` and the result of `mine score`. The job is imported, searched, sent and written as a real
job. Only the time of a model is missing.
"""

import argparse
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, which contains a miner.py

from bench.made_up import UNIJUDGE, make_vectors, sentence, serving

SHAPES = ("image → text", "text → image", "image → image", "image, text → text")
PICTURES = 4000


def rows(subset: int, number: int, dice: random.Random) -> Iterator[dict[str, str | bytes]]:
    """Yields the rows of one subset, with the columns of MMEB-train."""
    shape = SHAPES[subset % len(SHAPES)]

    def picture() -> str:
        return f"images/{dice.randrange(PICTURES)}.png"

    for row in range(number):
        query, positive = shape.split(" → ")
        yield {
            "qry": ("<|image_1|>\n" if "image" in query else "")
            + f"Task {subset}, {row}: {sentence(dice, 8)}\n",
            "qry_image_path": picture() if "image" in query else "",
            "pos_text": "<|image_1|>\nRepresent the given image."
            if positive == "image"
            else sentence(dice, 5),
            "pos_image_path": picture() if positive == "image" else "",
        }


def make(folder: Path, queries: int) -> None:
    """Writes the folders of MMEB-train, with 4,000 images of 6 kB."""
    dice = random.Random(1)  # noqa: S311  reproducible, not secret
    (folder / "images").mkdir(parents=True)
    for number in range(PICTURES):
        out = io.BytesIO()
        Image.frombytes("RGB", (45, 45), dice.randbytes(45 * 45 * 3)).save(out, "PNG")
        (folder / "images" / f"{number}.png").write_bytes(out.getvalue())
    for subset in range(20):
        name = folder / f"Subset_{subset:02}" / "original-00000-of-00001.parquet"
        name.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(list(rows(subset, queries // 20, dice))), name)


def run(*words: object) -> tuple[str, float]:
    """Runs one command. Returns its output and its seconds."""
    begun = time.perf_counter()
    done = subprocess.run(
        [*UNIJUDGE, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout, time.perf_counter() - begun


def main(queries: int, k: int) -> None:
    """Imports, estimates, scores and selects."""
    with tempfile.TemporaryDirectory() as scratch, serving() as url:
        folder = Path(scratch)
        make(folder / "MMEB-train", queries)
        said, seconds = run("mine", "import", "mmeb", folder / "MMEB-train", folder / "corpus")
        print(f"import, {seconds:.0f} s: {said.strip().partition(': ')[2]}")
        make_vectors(folder / "corpus", folder / "vectors", 128)
        job = {
            "corpus": folder / "corpus",
            "vectors": folder / "vectors",
            "out": folder / "scores",
            "service": url,
        }
        words = [f"{name}={value}" for name, value in (job | {"k": k}).items()]
        said, seconds = run("mine", "estimate", *words, "--probe", "2000")
        print(f"\nestimate, {seconds:.0f} s, including the search for candidates:\n\n{said}")
        planned = re.search(r"time +(.+?) on", said)[1]  # type: ignore[index]
        to_ask = re.search(r"to ask ([\d,]+)", said)[1]  # type: ignore[index]
        said, seconds = run("mine", "score", *words)
        asked = int(re.search(r"asked the judge about (\d+)", said)[1])  # type: ignore[index]
        rate = re.search(r"([\d.]+) pairs/s", said)[1]  # type: ignore[index]
        print("| | pairs sent | time |\n|---|---|---|")
        print(f"| estimated | {to_ask} | {planned} |")
        print(f"| measured | {asked:,} | {seconds / 60:.1f} min ({rate} pairs/s) |")
        chosen = (f"scores={folder / 'scores'}", f"out={folder / 'triples'}")
        said, seconds = run("mine", "select", *words[:2], *chosen)
        print(f"\nselect, {seconds:.0f} s:\n{said}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=10)
    options = parser.parse_args()
    main(options.queries, options.k)
