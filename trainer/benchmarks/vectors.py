"""Any system's vectors of a corpus, made by one process or several, the same whatever their number.

Which contents make a batch is decided before it is decided who embeds it. Every distinct content is embedded once: an
image that is asked about, and is a candidate too, is one. What it does not do: go on inside a set.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.systems.system import System
from unijudge.corpus import Corpus, Item, Query
from unijudge.entries import Rows
from unijudge.errors import DataError
from unijudge.provenance import Provenance
from unijudge.vectors import Kind, VectorManifest, Vectors, missing_parts, start_vectors, write_part


def embed_set(
    system: System,
    corpus: Corpus,
    out: Path,
    batch_size: int,
    accelerator: Accelerator,
    report: Callable[[int, int], None],
) -> None:
    """Writes the folder of vectors.

    Args:
        system: What embeds.
        corpus: What is embedded.
        out: The folder.
        batch_size: Contents at once.
        accelerator: Knows the processes; the first one writes.
        report: Is called with (contents done, contents in all) of this process' share.

    Raises:
        DataError: An image is gone or changed, or a vector is no vector: the id is named.
    """
    place_of: dict[bytes, int] = {}
    entries: list[Item | Query] = []
    of_row: dict[Kind, Rows] = {
        "items": np.empty(len(corpus.items), np.int64),
        "queries": np.empty(len(corpus.queries), np.int64),
    }
    kinds: list[tuple[Kind, Sequence[Item | Query]]] = [("items", corpus.items), ("queries", corpus.queries)]
    for kind, rows in kinds:
        for row, entry in enumerate(rows):
            of_row[kind][row] = place_of.setdefault(entry.key, len(entries))
            if of_row[kind][row] == len(entries):
                entries.append(entry)
    vectors_ND = _embed(system, corpus, entries, batch_size, accelerator, report)
    if accelerator.is_main_process:
        _write(out, system, corpus, vectors_ND, of_row)


def _embed(
    system: System,
    corpus: Corpus,
    entries: Sequence[Item | Query],
    size: int,
    accelerator: Accelerator,
    report: Callable[[int, int], None],
) -> Vectors:
    """Batches of like contents are dealt out in turn, and put together again by their places."""
    order = sorted(range(len(entries)), key=lambda row: (entries[row].image is None, len(entries[row].text or ""), row))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    found: list[tuple[list[int], Vectors]] = []
    for done, batch in enumerate(mine, start=1):
        found.append((batch, _embed_batch(system, corpus, [entries[row] for row in batch])))
        report(done, len(mine))
    found = gather_object(found)
    vectors_ND = np.empty((len(entries), found[0][1].shape[1]), np.float32)
    for batch, vectors in found:
        vectors_ND[batch] = vectors
    return vectors_ND


def _embed_batch(system: System, corpus: Corpus, entries: Sequence[Item | Query]) -> Vectors:
    contents = []
    for entry in entries:
        try:
            contents.append(corpus.content(entry))
        except DataError as error:
            raise DataError(f"{corpus.folder}: {_id(entry)}: {error}") from error
    try:
        vectors = system.embed(contents)
    except DataError as error:
        raise DataError(f"{corpus.folder}: among {_id(entries[0])} … {_id(entries[-1])}: {error}") from error
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        what = "the vector 0" if lengths[bad[0]] == 0 else "numbers that are not finite"
        raise DataError(
            f"{corpus.folder}: {_id(entries[bad[0]])}: {system.identity.model} answered {what}; no number was made of "
            "it. Look at this input, at the model's dtype and at its weights"
        )
    return np.asarray(vectors / lengths, np.float32)


def _write(out: Path, system: System, corpus: Corpus, vectors_ND: Vectors, of_row: dict[Kind, Rows]) -> None:
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
    for path, rows in missing_parts(out, manifest, "items"):
        ids = corpus.item_ids[rows.start : rows.stop].to_pylist()
        write_part(path, manifest, ids, vectors_ND[of_row["items"][rows.start : rows.stop]])
    for path, rows in missing_parts(out, manifest, "queries"):
        ids = corpus.query_ids[rows.start : rows.stop].to_pylist()
        write_part(path, manifest, ids, vectors_ND[of_row["queries"][rows.start : rows.stop]])


def _id(entry: Item | Query) -> str:
    return f"item {entry.item_id!r}" if isinstance(entry, Item) else f"query {entry.query_id!r}"
