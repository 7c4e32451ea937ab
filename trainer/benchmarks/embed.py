"""Embeds a benchmark set with any system. An interrupted set starts again from its beginning.

Every distinct content is embedded once, even if the content is both a query and a candidate.
"""

from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from trainer.benchmarks.settings import BenchmarkSettings
from trainer.embedding.base import System
from trainer.embedding.embed import Entries, embed_entries
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.formats.lazy_table import Rows
from unijudge.formats.vectors import (
    EntryKind,
    VectorManifest,
    Vectors,
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)
from unijudge.provenance import Provenance

Inputs = tuple[str | None, str | None]


def embed_set(
    settings: BenchmarkSettings,
    system: System,
    corpus: Corpus,
    out: Path,
    accelerator: Accelerator,
    report: Callable[[int, int], None],
) -> None:
    """Writes the folder of vectors.

    Args:
        settings: The settings of the benchmark, with the batch size and the number of threads.
        system: The system that embeds.
        corpus: The set as a corpus.
        out: The folder of the vectors.
        accelerator: The processes of the job. The first process writes.
        report: A function that the first process calls with (finished contents, all contents).

    Raises:
        DataError: An image is missing or changed, or a vector is invalid. The message names the id.
    """
    distinct: dict[Inputs, Item | Query] = {}
    kinds: list[Entries] = [corpus.items, corpus.queries]
    for entry in chain.from_iterable(kinds):
        distinct.setdefault(_inputs(entry), entry)
    entries = sorted(distinct.values(), key=_likeness)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(done, len(entries))

    vectors_ND = embed_entries(
        system, corpus, entries, settings.batch_size, settings.workers, accelerator, advance,
        together=settings.allow_partial,
    )  # fmt: skip
    if vectors_ND is not None:
        row_of = {_inputs(entry): row for row, entry in enumerate(entries)}
        _write(out, system, corpus, vectors_ND, row_of)


def _inputs(entry: Item | Query) -> Inputs:
    """Returns what a system sees of an entry. Unlike the key of an entry, this includes whitespace at the end."""
    return entry.text, entry.image_sha256


def _likeness(entry: Item | Query) -> tuple[bool, int]:
    """Returns a sort key that puts images together and sorts texts by length, so that a batch has similar inputs."""
    return entry.image is None, len(entry.text or "")


def _write(
    out: Path, system: System, corpus: Corpus, vectors_ND: Vectors, row_of: dict[Inputs, int]
) -> None:
    manifest = VectorManifest(
        corpus=corpus.fingerprint,
        width=vectors_ND.shape[1],
        dtype="float32",
        items=len(corpus.items),
        queries=len(corpus.queries),
        made=Provenance.now(),
        **asdict(system.identity),
    )
    start_vectors(out, manifest)
    kinds: list[tuple[EntryKind, Entries, list[str]]] = [
        ("items", corpus.items, corpus.item_ids.to_pylist()),
        ("queries", corpus.queries, corpus.query_ids.to_pylist()),
    ]
    for kind, entries, ids in kinds:
        sources: Rows = np.fromiter(
            (row_of[_inputs(entry)] for entry in entries), np.int64, len(ids)
        )
        for path, rows in missing_vector_parts(out, manifest, kind):
            write_vectors_part(
                path,
                manifest,
                ids[rows.start : rows.stop],
                vectors_ND[sources[rows.start : rows.stop]],
            )
