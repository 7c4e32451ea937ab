"""Collects the rows of a page as compact data for its script. The data hold every item and every image once.

The size of the data is limited. Long texts are cut until the rows fit. Images that do not fit are left out, starting
with the images of candidates that were not chosen. Cut texts and missing images are counted.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from miner.inspection.explain import VIEWS, Explained, Fate, explain, outcome, views_of
from miner.inspection.labels import Pair, digest_of
from miner.inspection.settings import InspectSettings
from miner.selection.inputs import Sources
from miner.selection.negatives import SelectionOutcome
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.images.decoding import open_image
from unijudge.pages.pages import data

THUMBNAILS = ((256, 65, 12_000), (64, 60, 1_100), (48, 40, 0))
"""Longest side in pixels, quality, and approximate bytes of a photograph. The page has the largest form that fits."""
FATES: tuple[Fate, ...] = get_args(Fate)
TEXT_CHARS = (400, 200, 100, 50)
TEXT_SHARE = 0.5
FRAME_BYTES = 200_000
"""Size of the page without its rows: styles, script and charts."""
FATES_FIRST = ("positive", "answer", "dropped", "chosen", "error", "kept")
"""The outcomes of items in the order in which their images are put on the page, until the page is full."""


@dataclass(frozen=True)
class PagePayload:
    """The data of a page, and the counts of missing parts."""

    values: dict[str, Any]
    """The data for the script."""
    text_chars: int
    """Number of characters after which texts are cut."""
    cut: int
    """Number of cut texts."""
    pictures: int
    """Number of distinct images of the rows."""
    left_out: int
    """Number of images that are left out, because the page is full."""
    broken: int
    """Number of images that cannot be read or decoded."""
    sampled: int
    """Number of pairs that a person can label."""


def shown_rows(
    corpus: Corpus,
    rows: Sequence[SelectionOutcome],
    pairs: Sequence[Pair],
    settings: InspectSettings,
    sources: Sources,
) -> PagePayload:
    """Collects the data of a page.

    Args:
        corpus: The corpus of the scores.
        rows: The outcomes of the rows to show, in order.
        pairs: The pairs to label, in order.
        settings: The settings of the selection and of the page. `max_mb` limits the size of the page.
        sources: The inputs of the selection, with its judges and overrides.

    Raises:
        SettingsError: The rows do not fit into `max_mb`, even with the shortest texts.
    """
    shown = {choice.resolved.case.query.query_id for choice in rows}
    labelled = {query_id for query_id, *_ in pairs}
    tables = _Tables(corpus, shown | labelled)
    judge = sources.manifests[0].judge.digest
    values = {
        "rows": [tables.row(choice, settings) for choice in rows],
        "sample": {
            "judge": judge,
            "seed": settings.seed,
            "digest": digest_of(pairs),
            "pairs": [tables.pair(*pair) for pair in pairs],
        },
        "given": [override.model_dump() for override in sources.words.overrides],
    }

    # Texts are cut until they leave enough room for images.
    room = int(settings.max_mb * 1_000_000) - FRAME_BYTES
    for chars in TEXT_CHARS:
        cut = values | {
            "texts": [_cut(text, chars) for text in tables.texts],
            "items": tables.items,
        }
        size = len(str(data("rows", cut)).encode())
        if size <= TEXT_SHARE * room:
            break
    if size > room:
        raise SettingsError(
            f"max_mb: {len(rows)} rows take {size / 1e6:.1f} MB without images. Give fewer rows or a larger max_mb"
        )

    pictures = tables.pictures(room - size)
    return PagePayload(
        values=cut
        | {"pictures": pictures, "fates": FATES, "views": VIEWS, "corpus": corpus.fingerprint},
        text_chars=chars,
        cut=sum(len(text) > chars for text in tables.texts),
        pictures=len(pictures),
        left_out=pictures.count(None),
        broken=sum(isinstance(picture, dict) for picture in pictures),
        sampled=len(pairs),
    )


class _Tables:
    """Tables without duplicates: rows hold indexes of items, and items hold indexes of texts and images."""

    def __init__(self, corpus: Corpus, query_ids: set[str]):
        self._corpus = corpus
        self._queries = {
            query_id: corpus.queries[corpus.query_row_of[query_id]] for query_id in query_ids
        }
        self._place_of: dict[str, int] = {}
        self._picture_of: dict[str, int] = {}
        self._owners: list[Item | Query] = []
        self._urgency: list[int] = []
        self.items: list[list[Any]] = []
        self.texts: list[str] = []

    def row(self, choice: SelectionOutcome, settings: InspectSettings) -> dict[str, Any]:
        judged = choice.resolved.case.query
        query = self._queries[judged.query_id]
        positives, candidates = explain(choice, settings)
        return {
            "id": judged.query_id,
            "subset": judged.subset,
            "asks": self._content(query, 0),
            "views": [VIEWS.index(view) for view in views_of(choice, settings.num_negatives)],
            "outcome": outcome(choice, settings.num_negatives),
            "positives": [self._cell(explained) for explained in positives],
            "candidates": [self._cell(explained) for explained in candidates],
        }

    def pair(self, query_id: str, subset: str, item_id: str) -> list[Any]:
        """Returns one pair to label, without its score, because a score would influence the person."""
        return [query_id, subset, self._content(self._queries[query_id], 0), self._item(item_id, 0)]

    def _cell(self, explained: Explained) -> list[Any]:
        judged = explained.judged
        return [
            self._item(judged.item_id, FATES_FIRST.index(explained.fate)),
            judged.rank,
            None if judged.similarity is None else round(judged.similarity, 3),
            None if explained.score is None else round(explained.score, 3),
            None if explained.alpha is None else round(explained.alpha, 4),
            FATES.index(explained.fate),
            _cut(explained.reason, TEXT_CHARS[0]),
        ]

    def _item(self, item_id: str, urgency: int) -> int:
        item = self._corpus.items[self._corpus.row_of[item_id]]
        if item_id not in self._place_of:
            self._place_of[item_id] = len(self.items)
            self.items.append([item_id, *self._content(item, urgency)])
        else:
            self._picture(item, urgency)
        return self._place_of[item_id]

    def _content(self, entry: Item | Query, urgency: int) -> list[int | None]:
        """Returns the indexes of an entry's text and image."""
        picture = self._picture(entry, urgency)
        if not entry.text:
            return [None, picture]
        self.texts.append(entry.text)
        return [len(self.texts) - 1, picture]

    def _picture(self, entry: Item | Query, urgency: int) -> int | None:
        if entry.image is None:
            return None
        place = self._picture_of.setdefault(entry.image, len(self._owners))
        if place == len(self._owners):
            self._owners.append(entry)
            self._urgency.append(urgency)
        self._urgency[place] = min(self._urgency[place], urgency)
        return place

    def pictures(self, room: int) -> list[str | dict[str, str] | None]:
        """Returns each image as WebP in base64, or the reason for a broken image, or None for a full page."""
        pictures: list[str | dict[str, str] | None] = [None] * len(self._owners)
        room -= len(pictures) * len('"",')
        fitting = (form for form in THUMBNAILS if len(pictures) * form[2] <= room)
        side, quality, _ = next(fitting, THUMBNAILS[-1])

        # The most urgent images first, until the page is full.
        for index in sorted(range(len(pictures)), key=self._urgency.__getitem__):
            picture = self._thumbnail(self._owners[index], side, quality)
            text = picture if isinstance(picture, str) else str(picture)
            room -= len(text.encode())
            if room < 0:
                break
            pictures[index] = picture
        return pictures

    def _thumbnail(self, entry: Item | Query, side: int, quality: int) -> str | dict[str, str]:
        try:
            image = open_image(self._corpus.content(entry).image or b"")
        except DataError as error:
            return {"why": str(error)}
        image.thumbnail((side, side))
        out = io.BytesIO()
        image.save(out, "WEBP", quality=quality)
        return base64.b64encode(out.getvalue()).decode()


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[:chars].rstrip() + "…"
