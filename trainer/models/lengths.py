"""Texts that are longer than a model takes: found before a job begins, not hours later where it meets them.

No picture is opened for it, so a text beside one is measured alone; `model.max_pixels` bounds what the picture adds.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainer.data.dataset import Example, Examples
from trainer.models.settings import BackboneSettings, OnLong
from unijudge.content import Content
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.shown import NAMED, shown

logger = logging.getLogger(__name__)

SHORT = "a"
DONE: dict[OnLong, str] = {"truncate": "their ends are cut off", "skip": "they are left out"}


def check_contents(corpus: Corpus, settings: BackboneSettings, length: Callable[[Content], int]) -> None:
    """Looks for texts of a corpus that are too long, and refuses them or says what is done with them.

    Args:
        corpus: Of which everything will be embedded.
        settings: The most tokens of an input, and what is done with a longer one.
        length: Of a content, in tokens.

    Raises:
        DataError: There are some, and they are errors: their number, and the ids of the longest.
    """
    room = settings.max_tokens - length(Content(SHORT))  # of a text that has a token for each byte
    found: list[tuple[int, str]] = []
    for entries in (corpus.items, corpus.queries):
        for row in np.flatnonzero(entries.text_bytes > room).tolist():
            entry: Item | Query = entries[row]
            found.append((length(Content(entry.text)), entry.item_id if isinstance(entry, Item) else entry.query_id))
    _tell(f"{corpus.folder}: {{}} of {len(corpus.items) + len(corpus.queries)} texts", settings, found)


def rows_that_fit(
    triples: Path, examples: Examples, settings: BackboneSettings, longest: Callable[[Example], int]
) -> Examples:
    """Looks for training rows with texts that are too long, and refuses them or says what is done with them.

    Args:
        triples: Where the rows come from, for the message.
        examples: The rows.
        settings: The most tokens of an input, and what is done with a longer one.
        longest: Of a row, the tokens of the longest input that is made of it.

    Returns:
        The rows to train on: without the long ones, where these are skipped.

    Raises:
        DataError: There are some, and they are errors: their number, and the queries of the longest.
        TrainingError: All of them are skipped.
    """
    first = examples.texts(0)
    short = replace(first, query=Content(SHORT), candidates=[Content(SHORT)] * len(first.candidates))
    room = settings.max_tokens - longest(short)
    lengths = {row: longest(examples.texts(row)) for row in np.flatnonzero(examples.most_text > room).tolist()}
    found = [(tokens, examples.query_id(row)) for row, tokens in lengths.items()]
    _tell(f"{triples}: {{}} of {len(examples)} rows have texts that", settings, found)
    if settings.on_long == "skip":
        return examples.without([row for row, tokens in lengths.items() if tokens > settings.max_tokens])
    return examples


def shortened(content: Content, limit: int, length: Callable[[Content], int]) -> Content:
    """A content with as much of the beginning of its text as fits; its picture stays whole.

    It is the text that is cut and not the tokens, so what a template puts around it is whole too.

    Args:
        content: Too long.
        limit: The most tokens.
        length: Of a content, in tokens.

    Example:
        >>> shortened(Content("a b c d"), 5, lambda content: len(content.text)).text
        'a b c'
    """
    text = content.text or ""

    def fits(letters: int) -> bool:
        return length(replace(content, text=text[:letters])) <= limit

    # Doubled first: a text of a megabyte is never tokenised whole.
    most = 1
    while most < len(text) and fits(most):
        most *= 2
    least, most = most // 2, min(most, len(text))
    while least < most - 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return replace(content, text=text[:least])


def _tell(what: str, settings: BackboneSettings, found: Iterable[tuple[int, str]]) -> None:
    limit = settings.max_tokens
    long = sorted(((length, name) for length, name in found if length > limit), reverse=True)
    if not long:
        return
    longest = ", ".join(f"{shown(name)} {length}" for length, name in long[:NAMED])
    said = f"{what.format(len(long))} are longer than model.max_tokens = {limit}"
    if settings.on_long == "error":
        raise DataError(
            f"{said}. The longest, in tokens: {longest}. Set model.max_tokens = {long[0][0]}, import without such "
            "texts, or set model.on_long: 'truncate' cuts their ends off, 'skip' leaves them out"
        )
    logger.warning("%s, and %s. The longest, in tokens: %s", said, DONE[settings.on_long], longest)
