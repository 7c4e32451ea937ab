"""Embeds a corpus by any system into a folder of vectors, part by part; a rerun embeds only the parts that are missing.

Several processes share each part out, batch by batch, and the first one writes it: any number makes the same files.
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
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)
from unijudge.provenance import Provenance

Entries = Sequence[Item | Query]


def embed_corpus(settings: EmbedSettings, report: Callable[[int, int], None]) -> VectorManifest:
    """Runs one embedding, or what is left of it.

    Args:
        settings: The job.
        report: Is called with (inputs done, inputs in all) after each batch, in the first process.

    Raises:
        DataError: An image is gone, changed or broken, or an input is too long: its id is named.
    """
    with processes(settings.model.device, settings.out) as accelerator:
        corpus = Corpus(settings.corpus)
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
        kinds: list[tuple[EntryKind, LazyTable[Any]]] = [("items", corpus.items), ("queries", corpus.queries)]
        todo = [
            (path, entries, rows)
            for kind, entries in kinds
            for path, rows in missing_vector_parts(settings.out, manifest, kind)
        ]
        accelerator.wait_for_everyone()  # all see the same parts missing
        total = sum(len(rows) for *_, rows in todo)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done, total)

        def embed_part(path: Path, entries: LazyTable[Any], rows: range) -> None:
            """The vectors of one part; they end with it."""
            part = entries.part(rows)
            vectors = embed_entries(
                system, corpus, part, settings.batch_size, settings.workers, accelerator, advance, settings.dtype
            )
            if vectors is not None:
                write_vectors_part(path, manifest, [_id(entry) for entry in part], vectors, np.asarray(~vectors.any(1)))

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
    """Embeds items or queries of a corpus, shared out over the processes.

    What makes a batch does not depend on how many processes there are, and so no number does.

    Args:
        system: What embeds.
        corpus: Where the entries come from.
        entries: What is embedded.
        batch_size: How many at once.
        workers: Threads of each process that read and prepare ahead.
        accelerator: Knows the processes.
        advance: Is called in the first process with how many more are done, in all.
        dtype: Of the vectors.
        together: Whether all processes raise what one of them does, once all are done; else they are left to wait.

    Returns:
        (entries, width), of unit length, or 0 where the system skips an input; None in all processes but the first,
        which hand theirs over.

    Raises:
        DataError: An input cannot be read, or its vector is none: its id is named.
    """
    starts = range(0, len(entries), batch_size)
    ours = range(accelerator.process_index, len(starts), accelerator.num_processes)

    def prepare(number: int) -> tuple[Entries, list[Any]]:
        # Entries become objects here: those of a large part would take more room than its vectors.
        some = entries[starts[number] : starts[number] + batch_size]
        return some, [_prepared(system, corpus, entry) for entry in some]

    kept = _Kept(len(entries), batch_size, alone=accelerator.num_processes == 1)
    failed: list[DataError] = []
    try:
        for number, (some, prepared) in prefetch(ours, prepare, workers):
            kept.add(number, _unit_vectors(system, corpus, some, prepared).astype(dtype))
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
    """The vectors of batches. Of one process, each batch goes where it stays: there is no second copy of a part."""

    def __init__(self, rows: int, batch_size: int, *, alone: bool):
        self._rows, self._batch_size, self._alone = rows, batch_size, alone
        self._all_ND: Vectors | None = None
        self.waiting: list[tuple[int, Vectors]] = []
        """Of several processes: the number of a batch, and its vectors."""

    def add(self, number: int, vectors_ND: Vectors) -> None:
        """Takes one batch."""
        if self._alone:
            self._place(number, vectors_ND)
        else:
            self.waiting.append((number, vectors_ND))

    def whole(self) -> Vectors | None:
        """All of them, in order; None where there was no batch."""
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
            f"{corpus.folder}: {_id(entry)}: {error}; mend it or import again, then run this again"
        ) from error


def _unit_vectors(system: System, corpus: Corpus, entries: Entries, prepared: Sequence[Any]) -> Vectors:
    try:
        vectors_ND = system.embed(prepared)
    except DataError as error:
        raise DataError(f"{corpus.folder}: among {_id(entries[0])} and what follows: {error}") from error
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    skipped_N = np.array([one is None for one in prepared])[:, None]
    lengths[skipped_N] = 1  # of 0, which stays
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        what = "the vector 0" if lengths[bad[0]] == 0 else "numbers that are not finite"
        raise DataError(
            f"{corpus.folder}: {_id(entries[bad[0]])}: {system.identity.model} made {what} of it, so its part was not "
            "written. Look at this input, at the model's dtype and at its weights"
        )
    return np.asarray(vectors_ND / lengths, np.float32)


def _id(entry: Item | Query) -> str:
    return entry.item_id if isinstance(entry, Item) else entry.query_id
