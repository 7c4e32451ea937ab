"""Creates the inputs of the measured commands, in any size."""

import io
import json
import math
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
