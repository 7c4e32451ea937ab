"""Embeds a whole corpus into a folder of vectors, part by part; a rerun embeds only the parts that are missing.

Several processes share each part out, batch by batch, and the first one writes it: any number makes the same files.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.ahead import ahead
from trainer.backbone import Backbone, open_backbone
from trainer.embedder import ENCODING, embed_streams, stream_of
from trainer.processes import processes
from trainer.settings import EmbedSettings
from unijudge.corpus import Corpus, Item, Query
from unijudge.encoding import Stream
from unijudge.errors import DataError
from unijudge.provenance import Provenance
from unijudge.vectors import Kind, VectorManifest, missing_parts, start_vectors, write_part

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
        backbone = open_backbone(settings.model)
        manifest = _manifest(settings, corpus, backbone)
        with accelerator.main_process_first():
            start_vectors(settings.out, manifest)
        kinds: list[tuple[Kind, Entries]] = [("items", corpus.items), ("queries", corpus.queries)]
        todo = [
            (path, entries[rows.start : rows.stop])
            for kind, entries in kinds
            for path, rows in missing_parts(settings.out, manifest, kind)
        ]
        accelerator.wait_for_everyone()  # all see the same parts missing
        total = sum(len(entries) for _, entries in todo)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done, total)

        for path, entries in todo:
            vectors = _vectors(backbone, corpus, entries, settings, accelerator, advance)
            if vectors is not None:
                write_part(path, manifest, [_id(entry) for entry in entries], vectors)
    return manifest


def _manifest(settings: EmbedSettings, corpus: Corpus, backbone: Backbone) -> VectorManifest:
    return VectorManifest(
        corpus=corpus.fingerprint,
        model=backbone.inputs.name,
        weights=backbone.inputs.weights,
        adapter=backbone.adapter,
        encoding=ENCODING,
        min_pixels=settings.model.min_pixels,
        max_pixels=settings.model.max_pixels,
        model_dtype=settings.model.dtype,
        width=backbone.width,
        dtype=settings.dtype,
        items=len(corpus.items),
        queries=len(corpus.queries),
        made=Provenance.now(settings),
    )


def _vectors(
    backbone: Backbone,
    corpus: Corpus,
    entries: Entries,
    settings: EmbedSettings,
    accelerator: Accelerator,
    advance: Callable[[int], None],
) -> npt.NDArray[np.float32] | None:
    """One part's vectors, in the first process; None in the others, which hand theirs over."""
    size = settings.batch_size
    batches = [range(start, min(start + size, len(entries))) for start in range(0, len(entries), size)]
    ours = batches[accelerator.process_index :: accelerator.num_processes]
    found = np.empty((len(entries), backbone.width), np.float32)

    def streams_of(batch: Sequence[int]) -> list[Stream]:
        return [_stream(backbone, corpus, entries[row]) for row in batch]

    for turn, (batch, streams) in enumerate(ahead(ours, streams_of, settings.workers)):
        with torch.inference_mode():
            found[batch] = embed_streams(backbone, streams).cpu().numpy()
        if accelerator.is_main_process:
            at_once = accelerator.num_processes
            advance(sum(len(one) for one in batches[turn * at_once : (turn + 1) * at_once]))
    if accelerator.num_processes > 1:
        rows = [row for batch in ours for row in batch]
        for rows_there, vectors in gather_object([(rows, found[rows])]):
            found[rows_there] = vectors
    return found if accelerator.is_main_process else None


def _stream(backbone: Backbone, corpus: Corpus, entry: Item | Query) -> Stream:
    try:
        return stream_of(backbone, corpus.content(entry))
    except DataError as error:
        raise DataError(f"{_id(entry)}: {error}; mend it or import again, then run this again") from error


def _id(entry: Item | Query) -> str:
    return entry.item_id if isinstance(entry, Item) else entry.query_id
