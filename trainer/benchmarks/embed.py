"""Any system's vectors of a benchmark set; it does not go on inside a set.

Every distinct content is embedded once: an image that is asked about, and is a candidate too, is one.
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
        settings: How many contents at once, and how many threads prepare them.
        system: What embeds.
        corpus: The set.
        out: The folder.
        accelerator: Knows the processes; the first one writes.
        report: Is called in the first process with (contents done, contents in all).

    Raises:
        DataError: An image is gone or changed, or a vector is none: the id is named.
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
        place_of = {_inputs(entry): place for place, entry in enumerate(entries)}
        _write(out, system, corpus, vectors_ND, place_of)


def _inputs(entry: Item | Query) -> Inputs:
    """What a system sees of it; unlike its key this tells blanks at the end apart, as a system may."""
    return entry.text, entry.image_sha256


def _likeness(entry: Item | Query) -> tuple[bool, int]:
    """Pictures together, texts by length: what stands in one batch costs alike."""
    return entry.image is None, len(entry.text or "")


def _write(out: Path, system: System, corpus: Corpus, vectors_ND: Vectors, place_of: dict[Inputs, int]) -> None:
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
        places: Rows = np.fromiter((place_of[_inputs(entry)] for entry in entries), np.int64, len(ids))
        for path, rows in missing_vector_parts(out, manifest, kind):
            write_vectors_part(path, manifest, ids[rows.start : rows.stop], vectors_ND[places[rows.start : rows.stop]])
