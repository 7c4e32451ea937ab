"""Measures the peak memory of each command for growing inputs. The peak should not grow with the input.

    .venv/bin/python -m bench.memory [--only score] [--share 0.01] [--scratch /data]

Each size of each case is generated, measured and deleted before the next size, in separate processes. The start is the
peak memory of the same command for eight rows: Python and its libraries. The table contains the peak above the start,
of the command and its children, in MB.
"""

import argparse
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEGABYTE = 10**6
FEW = 8
"""Rows of the start measurement."""
WIDTH = 64
"""Dimensions of generated vectors."""
NEGATIVES = 4
SCORED = 16_384
"""Number of rows with scores, in a corpus of any size."""
SUBSET = 1024
"""Rows of a subset. Candidates come from the same subset."""
REPEATS = 16
"""Rows with the same question when a million rows are scored. Each pair is sent once."""


@dataclass(frozen=True)
class Case:
    """One command, or several commands on the same input, and the sizes of the input."""

    name: str
    grows: str
    """The unit of the sizes."""
    sizes: tuple[int, ...]
    make: Callable[[Path, int], None]
    """Creates an input in a folder. Runs in a separate process, because a child inherits its parent's peak."""
    words: tuple[str, ...]
    """The command. `FOLDER` is a placeholder for the folder, and `URL` for the URL of the judge."""
    then: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names and words of commands that read the output of this command."""
    module: str = "unijudge"
    """The Python module that runs the command."""
    few: int = FEW
    """The size for the start measurement."""


def picture(dice: random.Random, side: int) -> bytes:
    """Returns a PNG of noise, with three bytes per pixel."""
    from PIL import Image

    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), dice.randbytes(side * side * 3)).save(
        out, "PNG", compress_level=0
    )
    return out.getvalue()


def make_group(side: int) -> Callable[[Path, int], None]:
    """Returns a function that writes pairs in one row group of Parquet. The size is the size of all images, in MB."""

    def make(folder: Path, size: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        dice = random.Random(1)  # noqa: S311  reproducible, not secret
        number = max(FEW, size * MEGABYTE // (side * side * 3))
        pictures = pa.array([picture(dice, side) for _ in range(number)], pa.binary())
        table = pa.table(
            {"query_image": pictures, "positive_text": [f"caption {row}" for row in range(number)]}
        )
        pq.write_table(table, folder / "rows.parquet", row_group_size=number)

    return make


def make_zip(folder: Path, members: int) -> None:
    """Writes a zip of small images. Rows name every five-hundredth image."""
    data = picture(random.Random(1), 4)  # noqa: S311  reproducible, not secret
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for member in range(members):
            archive.writestr(f"images/of the set/{member:08}.png", data)
    with (folder / "rows.jsonl").open("w") as file:
        for member in range(0, members, 500):
            row = {
                "query_image": f"images/of the set/{member:08}.png",
                "positive_text": f"caption {member}",
            }
            file.write(json.dumps(row) + "\n")


def make_array(folder: Path, size: int) -> None:
    """Writes one JSON array of pairs. The size is in MB."""
    dice = random.Random(1)  # noqa: S311  reproducible, not secret
    words = " ".join(f"word-{dice.randrange(10**6)}" for _ in range(100_000))
    length, row = 2000, 0
    with (folder / "rows.json").open("w") as file:
        while file.tell() < size * MEGABYTE or row < FEW:
            start, other = (dice.randrange(len(words) - length) for _ in range(2))
            told = {
                "query_text": f"{row} {words[start : start + length]}",
                "positive_text": f"{row} {words[other : other + length]}",
            }
            file.write(("[" if row == 0 else ",\n") + json.dumps(told))
            row += 1
        file.write("]")


def make_corpus(folder: Path, rows: int, repeats: int = 1) -> None:
    """Writes a corpus with as many questions as items, texts of a hundred letters, and subsets of 1,024 rows.

    `repeats` consecutive rows have the same question and the same positive.
    """
    from bench.made_up import sentence
    from unijudge.formats.corpus import Item, Query, write_corpus

    def text(number: int) -> str:
        return f"{number}: {sentence(random.Random(number), 16)}"  # noqa: S311  reproducible, not secret

    def query(row: int) -> Query:
        first = row - row % repeats
        return Query(
            f"a set/original-00000:{row}",
            subsets[row],
            (f"{first:032x}",),
            text=f"find {text(first)}",
        )

    subsets = [f"subset {number // SUBSET}" for number in range(rows)]
    items = (Item(f"{n:032x}", (subsets[n],), text=text(n)) for n in range(rows))
    write_corpus(
        folder / "corpus",
        items,
        map(query, range(rows)),
        images=folder,
        rejects=0,
        source="made up",
    )


def make_vectors(folder: Path, rows: int) -> None:
    """Writes a corpus with repeated questions, and its vectors part by part. Equal questions have equal vectors."""
    import numpy as np

    from unijudge.formats.corpus import Corpus
    from unijudge.formats.vectors import (
        VectorManifest,
        missing_vector_parts,
        start_vectors,
        write_vectors_part,
    )

    make_corpus(folder, rows, REPEATS)
    corpus, numbers = Corpus(folder / "corpus"), np.random.default_rng(1)
    manifest = VectorManifest(
        corpus=corpus.fingerprint, model="made up", weights="0", encoding="none", width=WIDTH, dtype="float16",
        items=rows, queries=rows, min_pixels=1, max_pixels=1, model_dtype="none",
    )  # fmt: skip
    start_vectors(folder / "vectors", manifest)
    for kind, ids in (("items", corpus.item_ids), ("queries", corpus.query_ids)):
        for path, part in missing_vector_parts(folder / "vectors", manifest, kind):
            vectors = numbers.normal(size=(len(part), WIDTH)).astype(np.float32)
            if kind == "queries":
                vectors = vectors[[row - row % REPEATS for row in range(len(part))]]
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            write_vectors_part(path, manifest, ids[part.start : part.stop].to_pylist(), unit)


def make_some_scores(folder: Path, rows: int) -> None:
    """Writes a corpus, and scores of its first shards."""
    make_scores(folder, rows, SCORED)


def make_scores(folder: Path, rows: int, scored: int | None = None) -> None:
    """Writes a corpus, and generated scores of all or its first rows: four candidates per query, from its subset."""
    from unijudge.formats.corpus import Corpus
    from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, write_shard
    from unijudge.judging.verdicts import JudgeIdentity
    from unijudge.storage.files import publish_json

    make_corpus(folder, rows)
    corpus, dice = Corpus(folder / "corpus"), random.Random(1)  # noqa: S311  reproducible, not secret
    judge = JudgeIdentity(
        model="made up", weights="0", prompt_fingerprint="none", yes="Yes", no="No", yes_id=None, no_id=None,
        order="none", min_pixels=None, max_pixels=None, dtype="none", head_dtype="none", quantisation="none",
        adapter="none", backend="none", backend_version="none",
    )  # fmt: skip
    plan = ScoreManifest(
        corpus=corpus.fingerprint,
        vectors="0",
        queries=rows,
        shard_size=4096,
        k=NEGATIVES,
        pool="subset",
        judge=judge,
    )
    publish_json(folder / "scores" / "manifest.json", plan)

    def judged(item: Any, rank: int | None) -> Judged:
        score = 0.95 if rank is None else dice.uniform(0.01, 0.8)
        measured = math.log(score), math.log1p(-score)
        return Judged(
            item.item_id,
            item.key,
            rank,
            None if rank is None else 0.5,
            *measured,
            argmax_is_label=True,
        )

    for shard in range(
        len(plan.parts) if scored is None else min(len(plan.parts), scored // plan.shard_size)
    ):
        found = []
        for row in plan.parts.rows_of(shard):
            query, start = corpus.queries[row], row // SUBSET * SUBSET
            near = [
                start + (row + place) % min(SUBSET, rows - start)
                for place in range(1, NEGATIVES + 1)
            ]
            candidates = [judged(corpus.items[other], rank) for rank, other in enumerate(near)]
            positives = [judged(corpus.items[row], None)]
            found.append(
                JudgedQuery(query.query_id, query.subset, query.key, positives, candidates)
            )
        write_shard(folder / "scores", plan, shard, found)


def settings(**values: str) -> tuple[str, ...]:
    """Returns settings as arguments of a command."""
    return tuple(f"{name.replace('__', '.')}={value}" for name, value in values.items())


def located(words: tuple[str, ...], folder: Path, url: str = "") -> list[str]:
    """Returns the words of a case, with the placeholders replaced."""
    return [word.replace("FOLDER", str(folder)).replace("URL", url) for word in words]


IMPORT = ("mine", "import", "pairs")
SCORE = settings(
    corpus="FOLDER/corpus",
    vectors="FOLDER/vectors",
    out="FOLDER/scores",
    service="URL",
    k="1",
    pool="subset",
)
SELECT = settings(
    corpus="FOLDER/corpus",
    scores="FOLDER/scores",
    out="FOLDER/triples",
    num_negatives=str(NEGATIVES),
)
EMBED = settings(
    corpus="FOLDER/corpus", out="FOLDER/vectors", model__name=str(ROOT / "demo/models/base")
)
EXPORT = ("mine", "export")
WRITTEN = ("--corpus", "FOLDER/corpus", "FOLDER/triples")
EXPORTS = (
    (
        "mine export sentence-transformers",
        (*EXPORT, "sentence-transformers", *WRITTEN, "FOLDER/rows.parquet"),
    ),
    ("mine export flagembedding", (*EXPORT, "flagembedding", *WRITTEN, "FOLDER/rows.jsonl")),
)
MILLION = (62_500, 250_000, 1_000_000)

CASES = (
    Case("import of Parquet, one row group with images of 100 kB", "MB", (62, 125, 250, 500), make_group(182),
         (*IMPORT, "FOLDER/rows.parquet", "FOLDER/out"), few=0),
    Case("import of Parquet, images of 9 MB in one page", "MB", (90, 180, 360, 720), make_group(1732),
         (*IMPORT, "FOLDER/rows.parquet", "FOLDER/out"), few=0),
    Case("import of a zip", "members", MILLION, make_zip,
         (*IMPORT, "FOLDER/rows.jsonl", "FOLDER/out", "--images", "FOLDER/images.zip")),
    Case("import of a JSON array", "MB", (250, 500, 1000, 2000), make_array,
         (*IMPORT, "FOLDER/rows.json", "FOLDER/out"), few=0),
    Case("train embed, a tiny model", "rows", (500, 2_000, 8_000), make_corpus, ("train", "embed", *EMBED)),
    Case("train embed, a scripted model", "rows", MILLION, make_corpus, ("--embed", "--scratch", "FOLDER"),
         module="bench.memory"),
    Case("mine score, each question in sixteen rows", "rows", MILLION, make_vectors, ("mine", "score", *SCORE)),
    Case("mine select", "rows", (16_000, 64_000, 128_000), make_scores, ("mine", "select", *SELECT), EXPORTS),
    Case("mine select of 16,384 rows of a corpus", "rows", MILLION, make_some_scores,
         ("mine", "select", *SELECT, *settings(partial="true")), EXPORTS),
)  # fmt: skip


def embed(folder: Path) -> None:
    """Runs `train embed` with random vectors, because a real model takes hours for a million rows."""
    import numpy as np

    from trainer.embedding import embed
    from trainer.embedding.base import Identity
    from trainer.embedding.settings import EmbedSettings

    class Scripted:
        """A system that returns random vectors."""

        identity = Identity(model="made up", weights="0", encoding="none")
        width = 512

        def __init__(self, _: Any):
            self._numbers = np.random.default_rng(1)

        def check_texts(self, _: Any) -> None:
            """Accepts all texts."""

        def prepare(self, content: Any) -> Any:
            """Returns the content unchanged."""
            return content

        def embed(self, prepared: Any) -> Any:
            """Returns random vectors."""
            return self._numbers.normal(size=(len(prepared), self.width))

    embed.OurModel = Scripted  # type: ignore[assignment,misc]
    embed.embed_corpus(
        EmbedSettings(corpus=folder / "corpus", out=folder / "vectors"), lambda *_: None
    )


def peak_of(command: list[str]) -> tuple[float, float]:
    """Runs a command. Returns the peak memory of the command or one of its children, in MB, and its seconds.

    Raises:
        RuntimeError: The command failed. The message contains the end of its output.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=printed, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {printed.read()[-1000:]}")
    return used.ru_maxrss * 1024 / MEGABYTE, time.perf_counter() - begun


def measured(case: Case, size: int, scratch: Path, url: str) -> list[tuple[float, float]]:
    """Returns the peaks and seconds of a case's commands for one size. The input is deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        peak_of(
            [
                sys.executable,
                "-m",
                "bench.memory",
                "--make",
                case.name,
                "--size",
                str(size),
                "--scratch",
                name,
            ]
        )
        commands = [case.words, *(words for _, words in case.then)]
        return [
            peak_of([sys.executable, "-m", case.module, *located(words, Path(name), url)])
            for words in commands
        ]


def rows_of(case: Case, scratch: Path, share: float, url: str) -> Iterator[str]:
    """Yields the rows of the table for a case, one row per command."""
    starts = measured(case, case.few, scratch, url)
    sizes = [max(case.few, 1, int(size * share)) for size in case.sizes]
    found = [measured(case, size, scratch, url) for size in sizes]
    names = [case.name, *(name for name, _ in case.then)]
    given = " · ".join(f"{size:,}" for size in sizes)
    for number, name in enumerate(names):
        start, _ = starts[number]
        above = " · ".join(f"{one[number][0] - start:.0f}" for one in found)
        seconds = " · ".join(f"{one[number][1]:.0f}" for one in found)
        yield f"| {name} | {given} {case.grows} | {start:.0f} | {above} | {seconds} |"


def table(names: list[str], scratch: Path, share: float) -> Iterator[str]:
    """Yields the table line by line, during the measurement."""
    yield "| command | sizes | start, MB | above start, MB | seconds |"
    yield "|---|---|---|---|---|"
    for case in CASES:
        if names and not any(name in case.name for name in names):
            continue
        asks = "URL" in " ".join(case.words)
        with judging() if asks else nullcontext("") as url:
            yield from rows_of(case, scratch, share, url)


@contextmanager
def judging() -> Iterator[str]:
    """Yields the URL of the scripted judge. A separate process starts the service, so this process stays small."""
    command = [sys.executable, "-m", "bench.memory", "--serve"]
    process: Any = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        yield process.stdout.readline().strip()  # at the end, Popen closes the pipes and waits for the process


def serve() -> None:
    """Starts the service, prints its URL, and stops it when the input ends."""
    from bench.made_up import serving

    with serving(start_s=300) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", default=[], help="run only cases with this text in their names"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of each size, for a shorter run"
    )
    parser.add_argument(
        "--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder with 20 GB free"
    )
    parser.add_argument("--make", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--embed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
    elif options.embed:
        embed(options.scratch)
    elif options.make:
        next(case for case in CASES if case.name == options.make).make(
            options.scratch, options.size
        )
    else:
        for line in table(options.only, options.scratch, options.share):
            print(line, flush=True)
