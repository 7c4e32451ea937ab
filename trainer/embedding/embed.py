"""Embeds a corpus into a folder of vectors, part by part. A rerun embeds only the missing parts.

Several processes share the batches of each part, and the first process writes the part. The number of processes does
not change the files.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.data.prefetch import prefetch
from trainer.embedding.base import System
from trainer.embedding.settings import EmbedSettings
from trainer.embedding.unijudge_model import OurModel
from trainer.training.distributed import processes
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.formats.lazy_table import LazyTable
from unijudge.formats.vectors import (
    EntryKind,
    VectorManifest,
    Vectors,
    check_vector_output,
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)
from unijudge.provenance import Provenance

Entries = Sequence[Item | Query]


def embed_corpus(settings: EmbedSettings, report: Callable[[int, int], None]) -> VectorManifest:
    """Embeds a corpus, or the missing parts of a corpus.

    Args:
        settings: The settings of the job.
        report: A function that the first process calls with (finished inputs, all inputs) after each batch.

    Raises:
        DataError: An image is missing, changed or invalid, or an input is too long. The message names its id. Or the
            output folder holds something else.
    """
    with processes(settings.model.device, settings.out) as accelerator:
        corpus = Corpus(settings.corpus)
        check_vector_output(settings.out)
        system = OurModel(settings.model)
        system.check_texts(corpus)
        manifest = VectorManifest(
            corpus=corpus.fingerprint,
            width=system.width,
            dtype=settings.dtype,
            items=len(corpus.items),
            queries=len(corpus.queries),
            made=Provenance.now(settings),
            on_long=settings.model.on_long,
            max_tokens=None if settings.model.on_long == "error" else settings.model.max_tokens,
            **asdict(system.identity),
        )
        with accelerator.main_process_first():
            start_vectors(settings.out, manifest)
        kinds: list[tuple[EntryKind, LazyTable[Any]]] = [
            ("items", corpus.items),
            ("queries", corpus.queries),
        ]
        todo = [
            (path, entries, rows)
            for kind, entries in kinds
            for path, rows in missing_vector_parts(settings.out, manifest, kind)
        ]
        accelerator.wait_for_everyone()  # all processes must see the same missing parts
        total = sum(len(rows) for *_, rows in todo)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done, total)

        def embed_part(path: Path, entries: LazyTable[Any], rows: range) -> None:
            """Embeds and writes one part. The vectors are freed when the function returns."""
            part = entries.part(rows)
            vectors = embed_entries(
                system,
                corpus,
                part,
                settings.batch_size,
                settings.workers,
                accelerator,
                advance,
                settings.dtype,
            )
            if vectors is not None:
                write_vectors_part(
                    path,
                    manifest,
                    [_id(entry) for entry in part],
                    vectors,
                    np.asarray(~vectors.any(1)),
                )

        for path, entries, rows in todo:
            embed_part(path, entries, rows)
    return manifest


def embed_entries(
    system: System,
    corpus: Corpus,
    entries: Entries,
    batch_size: int,
    workers: int,
    accelerator: Accelerator,
    advance: Callable[[int], None],
    dtype: str = "float32",
    *,
    together: bool = False,
) -> Vectors | None:
    """Embeds items or queries of a corpus. The processes share the batches.

    The number of processes changes neither the batches nor the vectors.

    Args:
        system: The system that embeds.
        corpus: The corpus of the entries.
        entries: The items or queries to embed.
        batch_size: The number of inputs in a batch.
        workers: The number of threads in each process that read and prepare inputs ahead.
        accelerator: The processes of the job.
        advance: A function that the first process calls with the number of newly finished inputs of all processes.
        dtype: The dtype of the vectors.
        together: Whether all processes raise the error of one process, after all processes are done. Otherwise the
            other processes are left waiting.

    Returns:
        (entries, width), of unit length, or 0 for an input that the system skips. Only the first process gets the
        vectors. The other processes get None.

    Raises:
        DataError: An input is unreadable or its vector invalid. The message names its id.
    """
    starts = range(0, len(entries), batch_size)
    ours = range(accelerator.process_index, len(starts), accelerator.num_processes)

    def prepare(number: int) -> tuple[Entries, list[Any]]:
        # Entries become objects only here, since the objects of a large part would take more memory than its vectors.
        batch = entries[starts[number] : starts[number] + batch_size]
        return batch, [_prepared(system, corpus, entry) for entry in batch]

    kept = _Kept(len(entries), batch_size, alone=accelerator.num_processes == 1)
    failed: list[DataError] = []
    try:
        for number, (batch, prepared) in prefetch(ours, prepare, workers):
            kept.add(number, _unit_vectors(system, corpus, batch, prepared).astype(dtype))
            if accelerator.is_main_process:
                end = starts[number] + batch_size * accelerator.num_processes
                advance(min(end, len(entries)) - starts[number])
    except DataError as error:
        if not together:
            raise
        failed.append(error)
    if accelerator.num_processes > 1:
        failed = gather_object(failed) if together else failed
        kept.waiting = gather_object(kept.waiting)
    if failed:
        raise failed[0]
    return kept.whole() if accelerator.is_main_process else None


class _Kept:
    """The vectors of finished batches. A single process stores each batch in its final position, without a copy."""

    def __init__(self, rows: int, batch_size: int, *, alone: bool):
        self._rows = rows
        self._batch_size = batch_size
        self._alone = alone
        self._all_ND: Vectors | None = None
        self.waiting: list[tuple[int, Vectors]] = []
        """The number and the vectors of each batch, if there are several processes."""

    def add(self, number: int, vectors_ND: Vectors) -> None:
        """Adds the vectors of one batch."""
        if self._alone:
            self._place(number, vectors_ND)
        else:
            self.waiting.append((number, vectors_ND))

    def whole(self) -> Vectors | None:
        """Returns the vectors of all batches, in order, or None if there was no batch."""
        for number, vectors_ND in self.waiting:
            self._place(number, vectors_ND)
        return self._all_ND

    def _place(self, number: int, vectors_ND: Vectors) -> None:
        if self._all_ND is None:
            self._all_ND = np.empty((self._rows, vectors_ND.shape[1]), vectors_ND.dtype)
        start = number * self._batch_size
        self._all_ND[start : start + len(vectors_ND)] = vectors_ND


def _prepared(system: System, corpus: Corpus, entry: Item | Query) -> Any:
    try:
        return system.prepare(corpus.content(entry))
    except DataError as error:
        raise DataError(
            f"{corpus.folder}: {_id(entry)}: {error}. Fix this input or import again, then run this command again"
        ) from error


def _unit_vectors(
    system: System, corpus: Corpus, entries: Entries, prepared: Sequence[Any]
) -> Vectors:
    try:
        vectors_ND = system.embed(prepared)
    except DataError as error:
        raise DataError(
            f"{corpus.folder}: in the batch that starts with {_id(entries[0])}: {error}"
        ) from error
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    skipped_N = np.array([content is None for content in prepared])[:, None]
    lengths[skipped_N] = 1  # the vector of a skipped input stays 0
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        result = (
            "the vector 0" if lengths[bad[0]] == 0 else "a vector with numbers that are not finite"
        )
        raise DataError(
            f"{corpus.folder}: {_id(entries[bad[0]])}: {system.identity.model} returned {result} for this input, so "
            "the part was not written. Check this input, the dtype of the model and its weights"
        )
    return np.asarray(vectors_ND / lengths, np.float32)


def _id(entry: Item | Query) -> str:
    return entry.item_id if isinstance(entry, Item) else entry.query_id
