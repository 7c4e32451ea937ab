"""Embeds a whole corpus into a folder of vectors, part by part; a rerun embeds only the parts that are missing."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from trainer.backbone import Backbone, open_backbone
from trainer.embedder import embed_streams, stream_of
from trainer.settings import EmbedSettings
from unijudge.corpus import Corpus, Item, Query
from unijudge.encoding import Stream
from unijudge.errors import DataError
from unijudge.leases import lease
from unijudge.provenance import Provenance
from unijudge.vectors import Kind, VectorManifest, missing_parts, start_vectors, write_part


def embed_corpus(settings: EmbedSettings, report: Callable[[int, int], None]) -> VectorManifest:
    """Runs one embedding, or what is left of it.

    Args:
        settings: The job.
        report: Is called with (inputs done, inputs in all) after each batch.

    Raises:
        DataError: An image is gone, changed or broken, or an input is too long: its id is named.
    """
    corpus = Corpus(settings.corpus)
    backbone = open_backbone(settings.model)
    manifest = VectorManifest(
        corpus=corpus.fingerprint,
        model=backbone.inputs.name,
        weights=backbone.inputs.weights,
        adapter=backbone.adapter,
        encoding=settings.model.encoding,
        min_pixels=settings.model.min_pixels,
        max_pixels=settings.model.max_pixels,
        resize=settings.model.resize,
        model_dtype=settings.model.dtype,
        width=backbone.width,
        dtype=settings.dtype,
        items=len(corpus.items),
        queries=len(corpus.queries),
        made=Provenance.now(settings),
    )
    with lease(settings.out):
        start_vectors(settings.out, manifest)
        kinds: list[tuple[Kind, Sequence[Item | Query]]] = [("items", corpus.items), ("queries", corpus.queries)]
        todo = [
            (path, entries[rows.start : rows.stop])
            for kind, entries in kinds
            for path, rows in missing_parts(settings.out, manifest, kind)
        ]
        total = sum(len(entries) for _, entries in todo)
        done = 0
        for path, entries in todo:
            vectors = np.empty((len(entries), backbone.width), np.float32)
            for batch in _batches(entries, settings.batch_size):
                vectors[batch] = _embed(backbone, corpus, [entries[row] for row in batch])
                done += len(batch)
                report(done, total)
            write_part(path, manifest, [_id(entry) for entry in entries], vectors)
    return manifest


def _batches(entries: Sequence[Item | Query], size: int) -> list[list[int]]:
    """Rows in batches of like inputs (pictures together, texts by length), so that little is padded."""
    order = sorted(range(len(entries)), key=lambda row: (entries[row].image is None, len(entries[row].text or "")))
    return [order[start : start + size] for start in range(0, len(order), size)]


@torch.inference_mode()
def _embed(backbone: Backbone, corpus: Corpus, entries: Sequence[Item | Query]) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = (
        embed_streams(backbone, [_stream(backbone, corpus, entry) for entry in entries]).cpu().numpy()
    )
    return vectors


def _stream(backbone: Backbone, corpus: Corpus, entry: Item | Query) -> Stream:
    try:
        return stream_of(backbone, corpus.content(entry))
    except DataError as error:
        raise DataError(f"{_id(entry)}: {error}; mend it or import again, then run this again") from error


def _id(entry: Item | Query) -> str:
    return entry.item_id if isinstance(entry, Item) else entry.query_id
