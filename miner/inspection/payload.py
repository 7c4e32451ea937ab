"""What a page shows of its rows, as compact data for its script: every item and every picture stands in it once.

It has a bound: long texts are cut until the rows fit, and pictures that do not fit beside them give way, those of
candidates that were passed over first. Whatever gave way is counted.
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

THUMBNAIL, SMALL_THUMBNAIL = (64, 60), (48, 40)
"""Longest side in pixels, and quality; the small one where there are too many."""
THUMBNAIL_BYTES = 1_100
"""What one of a photograph takes, about."""
FATES: tuple[Fate, ...] = get_args(Fate)
TEXT_CHARS = (400, 200, 100, 50)
TEXT_SHARE = 0.5
FRAME_BYTES = 200_000
"""For the page around its rows: styles, script, charts."""
FATES_FIRST = ("positive", "answer", "dropped", "chosen", "error", "kept")
"""In which order pictures get their room."""


@dataclass(frozen=True)
class PagePayload:
    """The rows of a page."""

    values: dict[str, Any]
    """For the script."""
    text_chars: int
    """Characters after which texts are cut."""
    cut: int
    """Texts that are."""
    pictures: int
    """Distinct pictures of these rows."""
    left_out: int
    """Of these, those for which there was no room."""
    broken: int
    """Of these, those that cannot be read or decoded."""
    sampled: int
    """Pairs that a person may label."""


def shown_rows(
    corpus: Corpus,
    rows: Sequence[SelectionOutcome],
    pairs: Sequence[Pair],
    settings: InspectSettings,
    sources: Sources,
) -> PagePayload:
    """Collects what the page needs.

    Args:
        corpus: To which the scores belong.
        rows: What selection made of those to show, in order.
        pairs: To label, in order.
        settings: With which it did; `max_mb` bounds the page.
        sources: Of the selection: its judges, and which overrides it had.

    Raises:
        SettingsError: Not even the rows' shortest texts fit into `max_mb`.
    """
    shown = {choice.resolved.case.query.query_id for choice in rows}
    tables = _Tables(corpus, shown | {query_id for query_id, *_ in pairs})
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
    room = int(settings.max_mb * 1_000_000) - FRAME_BYTES
    for chars in TEXT_CHARS:
        cut = values | {"texts": [_cut(text, chars) for text in tables.texts], "items": tables.items}
        size = len(str(data("rows", cut)).encode())
        if size <= TEXT_SHARE * room:
            break
    if size > room:
        raise SettingsError(
            f"max_mb: {len(rows)} rows take {size / 1e6:.1f} MB without a picture; give fewer rows, or a larger max_mb"
        )
    pictures = tables.pictures(room - size)
    return PagePayload(
        values=cut | {"pictures": pictures, "fates": FATES, "views": VIEWS, "corpus": corpus.fingerprint},
        text_chars=chars,
        cut=sum(len(text) > chars for text in tables.texts),
        pictures=len(pictures),
        left_out=pictures.count(None),
        broken=sum(isinstance(picture, dict) for picture in pictures),
        sampled=len(pairs),
    )


class _Tables:
    """Rows name items, items name texts and pictures, all by their place."""

    def __init__(self, corpus: Corpus, query_ids: set[str]):
        self._corpus = corpus
        self._queries = {query_id: corpus.queries[corpus.query_row_of[query_id]] for query_id in query_ids}
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
        """One pair to label, without its score: that would sway the person."""
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
        """The places of its text and of its picture."""
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
        """A WebP in base64, or why there is none; None where the room has run out."""
        made: list[str | dict[str, str] | None] = [None] * len(self._owners)
        room -= len(made) * len('"",')
        form = THUMBNAIL if len(made) * THUMBNAIL_BYTES <= room else SMALL_THUMBNAIL
        for place in sorted(range(len(made)), key=self._urgency.__getitem__):
            picture = self._thumbnail(self._owners[place], *form)
            room -= len(picture) if isinstance(picture, str) else len(str(picture).encode())
            if room < 0:
                break
            made[place] = picture
        return made

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
