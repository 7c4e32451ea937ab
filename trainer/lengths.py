"""Texts that are longer than a model takes: found before a job begins, not hours later where it meets them.

No picture is opened for it, so a text beside one is measured alone; `model.max_pixels` bounds what the picture adds.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainer.examples import Example, Examples
from unijudge.corpus import Content, Corpus, Item, Query
from unijudge.errors import DataError
from unijudge.shown import NAMED, shown

SHORT = "a"


def check_contents(corpus: Corpus, limit: int, length: Callable[[Content], int]) -> None:
    """Refuses a corpus with texts that are too long.

    Args:
        corpus: Of which everything will be embedded.
        limit: The most tokens of an input.
        length: Of a content, in tokens.

    Raises:
        DataError: There are some: their number, and the ids of the longest.
    """
    room = limit - length(Content(SHORT))  # of a text that has a token for each byte
    found: list[tuple[int, str]] = []
    for entries in (corpus.items, corpus.queries):
        for row in np.flatnonzero(entries.text_bytes > room).tolist():
            entry: Item | Query = entries[row]
            found.append((length(Content(entry.text)), entry.item_id if isinstance(entry, Item) else entry.query_id))
    _refuse(f"{corpus.folder}: {{}} of {len(corpus.items) + len(corpus.queries)} texts", limit, found)


def check_rows(triples: Path, examples: Examples, limit: int, longest: Callable[[Example], int]) -> None:
    """Refuses training rows with texts that are too long.

    Args:
        triples: Where the rows come from, for the message.
        examples: The rows.
        limit: The most tokens of an input.
        longest: Of a row, the tokens of the longest input that is made of it.

    Raises:
        DataError: There are some: their number, and the queries of the longest.
    """
    first = examples.texts(0)
    room = limit - longest(replace(first, query=Content(SHORT), candidates=[Content(SHORT)] * len(first.candidates)))
    doubtful = np.flatnonzero(examples.most_text > room).tolist()
    found = [(longest(examples.texts(row)), examples.query_id(row)) for row in doubtful]
    _refuse(f"{triples}: {{}} of {len(examples)} rows have texts that", limit, found)


def _refuse(what: str, limit: int, found: Iterable[tuple[int, str]]) -> None:
    long = sorted(((length, name) for length, name in found if length > limit), reverse=True)
    if long:
        longest = ", ".join(f"{shown(name)} {length}" for length, name in long[:NAMED])
        raise DataError(
            f"{what.format(len(long))} are longer than model.max_tokens = {limit}. The longest, in tokens: {longest}. "
            f"Set model.max_tokens = {long[0][0]}, or import without such texts"
        )
