"""A check for texts that are too long for a model. A job runs the check before it starts, not hours later.

The check opens no images, so the text of a content with an image is measured alone. `model.max_pixels` limits the
tokens that an image adds.
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
DONE: dict[OnLong, str] = {
    "truncate": "The ends of these texts are cut off",
    "skip": "These texts are left out",
}


def check_contents(
    corpus: Corpus, settings: BackboneSettings, length: Callable[[Content], int]
) -> None:
    """Checks a corpus for texts that are too long. Raises an error or warns, as `on_long` says.

    Args:
        corpus: The corpus, of which all items and queries will be embedded.
        settings: The settings with `max_tokens` and `on_long`.
        length: A function that returns the number of tokens of a content.

    Raises:
        DataError: Some texts are too long and `on_long` is "error". The message gives their number and the ids of the
            longest texts.
    """
    room = settings.max_tokens - length(Content(SHORT))  # a text has at most one token per byte
    measured: list[tuple[int, str]] = []
    for entries in (corpus.items, corpus.queries):
        for row in np.flatnonzero(entries.text_bytes > room).tolist():
            entry: Item | Query = entries[row]
            measured.append(
                (
                    length(Content(entry.text)),
                    entry.item_id if isinstance(entry, Item) else entry.query_id,
                )
            )
    _tell(
        f"{corpus.folder}: {{}} of {len(corpus.items) + len(corpus.queries)} texts",
        settings,
        measured,
    )


def rows_that_fit(
    triples: Path, examples: Examples, settings: BackboneSettings, longest: Callable[[Example], int]
) -> Examples:
    """Checks the training rows for texts that are too long. Raises an error or warns, as `on_long` says.

    Args:
        triples: The folder of the rows, for the message.
        examples: The rows.
        settings: The settings with `max_tokens` and `on_long`.
        longest: A function that returns the number of tokens of the longest input that a row produces.

    Returns:
        The rows to train on. With `on_long` = "skip", rows with long texts are left out.

    Raises:
        DataError: Some rows have texts that are too long and `on_long` is "error". The message gives their number and
            the queries with the longest texts.
        TrainingError: All rows are skipped.
    """
    first = examples.texts(0)
    short = replace(
        first, query=Content(SHORT), candidates=[Content(SHORT)] * len(first.candidates)
    )
    room = settings.max_tokens - longest(short)
    lengths = {
        row: longest(examples.texts(row))
        for row in np.flatnonzero(examples.most_text > room).tolist()
    }
    measured = [(tokens, examples.query_id(row)) for row, tokens in lengths.items()]
    _tell(f"{triples}: {{}} of {len(examples)} rows have texts that", settings, measured)
    if settings.on_long == "skip":
        return examples.without(
            [row for row, tokens in lengths.items() if tokens > settings.max_tokens]
        )
    return examples


def shortened(content: Content, limit: int, length: Callable[[Content], int]) -> Content:
    """Returns a content with the longest beginning of its text that fits the limit, and with its complete image.

    The function cuts the text, not the tokens, so the template around the text also stays complete.

    Args:
        content: A content that is too long.
        limit: The largest number of tokens.
        length: A function that returns the number of tokens of a content.

    Example:
        >>> shortened(Content("a b c d"), 5, lambda content: len(content.text)).text
        'a b c'
    """
    text = content.text or ""

    def fits(letters: int) -> bool:
        return length(replace(content, text=text[:letters])) <= limit

    # The length doubles first, so that a text of a megabyte is never tokenised as a whole.
    most = 1
    while most < len(text) and fits(most):
        most *= 2
    least, most = most // 2, min(most, len(text))
    while least < most - 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return replace(content, text=text[:least])


def _tell(what: str, settings: BackboneSettings, measured: Iterable[tuple[int, str]]) -> None:
    limit = settings.max_tokens
    long = sorted(((length, name) for length, name in measured if length > limit), reverse=True)
    if not long:
        return
    longest = ", ".join(f"{shown(name)} {length}" for length, name in long[:NAMED])
    problem = f"{what.format(len(long))} are longer than model.max_tokens = {limit}"
    if settings.on_long == "error":
        raise DataError(
            f"{problem}. The longest, in tokens: {longest}. Set model.max_tokens = {long[0][0]}, import without long "
            "texts, or set model.on_long: 'truncate' cuts off the ends of long texts, 'skip' leaves long texts out"
        )
    logger.warning("%s. %s. The longest, in tokens: %s", problem, DONE[settings.on_long], longest)
