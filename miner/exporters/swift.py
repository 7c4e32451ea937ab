"""ms-swift: JSON lines of messages, positive_messages and negative_messages, with the images of each beside it.

A picture stands where `<image>` does, before the text. The library counts its tags against its images, so a row with
such a tag in a text of its own is left out, and counted. A side of the corpus that has no image has no key for images.
The first rows are some that have images, since the loader takes its types from the beginning of the file. A negative
that only fills its row up is written once. There are no scores: the library's contrastive losses take none.

Source: modelscope/ms-swift, docs "Embedding Training", version 4.6.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from miner.exporters.training_rows import AS_TIME, LeftOut, TrainingRow, TrainingRows, check_out, write_jsonl
from unijudge.formats.corpus import Item, Query

SWIFT_KEYS = ("messages", "positive_messages", "negative_messages")
"""What every row has."""
IMAGE_KEYS = ("images", "positive_images", "negative_images")
TAGS = ("<image>", "<video>", "<audio>")


def export_swift(rows: TrainingRows, out: Path, *, negatives: int | None = None) -> None:
    """Writes one JSONL file.

    Args:
        rows: The selection.
        out: Ends in .jsonl.
        negatives: In every row; a row with fewer distinct ones is left out. Default: as many distinct ones as each has.

    Raises:
        DataError: `out` exists, a folder is damaged, or no row is left.
        SettingsError: More negatives than the rows have, or another ending.
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
    """Number → line of the first one that has an image, for each kind of image."""
    leaders = {}
    wanted = set(IMAGE_KEYS)
    for number, line in enumerate(lines):
        wanted &= set(line)
        if found := {key for key in wanted if any(line[key])}:
            leaders[number] = line
            wanted -= found
        if not wanted:
            break
    return leaders


def _led(lines: Iterable[dict[str, Any]], leaders: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
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
    negatives = [one.item for one in row.distinct_negatives[:wanted]]
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
