"""The corpus that an import finds in its place: replaced when it is of the same source, and never without a word."""

import logging
from pathlib import Path

from unijudge.errors import DataError
from unijudge.formats.corpus import CorpusManifest
from unijudge.storage.files import read_json
from unijudge.storage.outputs import check_folder
from unijudge.storage.stores import exists

WRITTEN = ("corpus.json", "items.parquet", "queries.parquet", "rejects.jsonl", "images")
"""What an import writes."""

logger = logging.getLogger(__name__)


def older_corpus(out: Path, source: str) -> CorpusManifest | None:
    """The corpus that is there already.

    Raises:
        DataError: It came from somewhere else, or the folder holds something that no import writes.
    """
    check_folder(out, WRITTEN)
    if not exists(out / "corpus.json"):
        return None
    older = read_json(out / "corpus.json", CorpusManifest)
    if older.source != source:
        raise DataError(
            f"{out}: holds the corpus of {older.source}, and this import is of {source}; give another folder, or "
            "delete that one"
        )
    return older


def tell_replaced(out: Path, older: CorpusManifest, made: CorpusManifest) -> None:
    """Says what became of it."""
    if older.fingerprint == made.fingerprint:
        logger.info("%s: the same corpus as before", out)
        return
    logger.warning(
        "%s: replaced the older corpus of %d queries and %d items; vectors, scores and training rows that were made "
        "from it do not fit this one",
        out, older.queries, older.items,
    )  # fmt: skip
