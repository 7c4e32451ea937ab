"""Exports for ms-swift: JSON lines of messages, positive_messages and negative_messages, and keys for their images.

The tag `<image>` before a text stands for the image. The library checks that the numbers of tags and images agree, so
rows whose texts contain such a tag are left out and counted. If no query has an image, rows have no key for query
images; the same holds for items. Rows with images come first, because the loader takes its types from the beginning of
the file. Duplicate negatives are not written. There are no scores, because the library's contrastive losses do not use
scores.

Source: modelscope/ms-swift, docs "Embedding Training", version 4.6.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from miner.exporters.training_rows import (
    AS_TIME,
    LeftOut,
    TrainingRow,
    TrainingRows,
    check_out,
    write_jsonl,
)
from unijudge.formats.corpus import Item, Query

SWIFT_KEYS = ("messages", "positive_messages", "negative_messages")
"""The keys of every row."""
IMAGE_KEYS = ("images", "positive_images", "negative_images")
TAGS = ("<image>", "<video>", "<audio>")


def export_swift(rows: TrainingRows, out: Path, *, negatives: int | None = None) -> None:
    """Writes one JSONL file.

    Args:
        rows: The selection.
        out: A file that ends in .jsonl.
        negatives: The number of negatives in every row. Rows with fewer distinct negatives are left out. By default
            each row has all its distinct negatives.

    Raises:
        DataError: `out` exists, a folder is damaged, or no row is left.
        SettingsError: `negatives` is more than the rows have, or `out` has a different ending.
    """
    check_out(out, ".jsonl")
    if negatives is not None:
        rows.check_negatives(negatives)
    query_images = any(query.image for query in rows.corpus.queries)
    item_images = any(item.image for item in rows.corpus.items)

    def lines() -> Iterator[dict[str, Any]]:
        return rows.export(lambda row: _line(rows, row, negatives, query_images, item_images))

    write_jsonl(out, _led(lines(), _leaders(lines())))


def _leaders(lines: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Returns number → line of the first lines with an image, so that every key for images has an image in one."""
    leaders = {}
    missing = set(IMAGE_KEYS)
    for number, line in enumerate(lines):
        missing &= set(line)
        if with_images := {key for key in missing if any(line[key])}:
            leaders[number] = line
            missing -= with_images
        if not missing:
            break
    return leaders


def _led(
    lines: Iterable[dict[str, Any]], leaders: dict[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields the leaders first, then all other lines."""
    yield from leaders.values()
    for number, line in enumerate(lines):
        if number not in leaders:
            yield line


def _line(
    rows: TrainingRows, row: TrainingRow, wanted: int | None, query_images: bool, item_images: bool
) -> dict[str, Any]:
    if row.holds(TAGS):
        raise LeftOut(f"a text contains {' or '.join(TAGS)}")
    if row.holds_time():
        raise LeftOut(AS_TIME)
    negatives = [candidate.item for candidate in row.distinct_negatives[:wanted]]
    if wanted is not None and len(negatives) < wanted:
        raise LeftOut(f"fewer than {wanted} distinct negatives")

    line: dict[str, Any] = {
        "messages": _messages(row.query),
        "positive_messages": [_messages(row.positive.item)],
        "negative_messages": [_messages(item) for item in negatives],
    }
    if query_images:
        line["images"] = _images(rows, row.query)
    if item_images:
        line["positive_images"] = [_images(rows, row.positive.item)]
        line["negative_images"] = [_images(rows, item) for item in negatives]
    return line


def _messages(entry: Query | Item) -> list[dict[str, str]]:
    tag = "" if entry.image is None else TAGS[0]
    return [{"role": "user", "content": tag + (entry.text or "")}]


def _images(rows: TrainingRows, entry: Query | Item) -> list[str]:
    image = rows.image(entry)
    return [] if image is None else [image]
