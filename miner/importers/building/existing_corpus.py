"""Checks for an earlier corpus in the output folder. An import overwrites it only if it has the same source."""

import logging
from pathlib import Path

from unijudge.errors import DataError
from unijudge.formats.corpus import CorpusManifest
from unijudge.storage.files import read_json
from unijudge.storage.outputs import check_folder
from unijudge.storage.stores import exists

WRITTEN = ("corpus.json", "items.parquet", "queries.parquet", "rejects.jsonl", "images")
"""The files and folders that an import writes."""

logger = logging.getLogger(__name__)


def older_corpus(out: Path, source: str) -> CorpusManifest | None:
    """Returns the manifest of an earlier corpus in the folder, or None.

    Raises:
        DataError: The earlier corpus has a different source, or the folder holds files that no import writes.
    """
    check_folder(out, WRITTEN)
    if not exists(out / "corpus.json"):
        return None
    older = read_json(out / "corpus.json", CorpusManifest)
    if older.source != source:
        raise DataError(
            f"{out}: holds a corpus of {older.source}, but this import is of {source}. Give another folder, or delete "
            "this folder"
        )
    return older


def log_replaced(out: Path, older: CorpusManifest, made: CorpusManifest) -> None:
    """Logs whether the new corpus differs from the earlier corpus."""
    if older.fingerprint == made.fingerprint:
        logger.info("%s: the corpus is the same as before", out)
        return
    logger.warning(
        "%s: overwrote an earlier corpus of %d queries and %d items. Vectors, scores and training rows of the earlier "
        "corpus do not fit the new corpus. Make them again",
        out, older.queries, older.items,
    )  # fmt: skip
