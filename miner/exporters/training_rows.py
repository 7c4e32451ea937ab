"""What every layout is written from: the rows of a selection with their contents, one at a time, however many.

What it promises: only one block of rows is in memory beside the corpus; a row that is left out is counted, with its
reason and the first query that it met. What it does not do: open an image. Files are named, by the corpus' own root or
by the one that the receiving machine has.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.formats.scores import Judged
from unijudge.formats.triples import Negative, Triple, TripleManifest, read_triples
from unijudge.storage.files import publishing, read_json
from unijudge.storage.locations import is_local
from unijudge.storage.outputs import taken
from unijudge.storage.stores import exists

ITEMS_AT_HAND = 16_384
"""Items that are kept for the next row: the same labels and captions stand in many."""

TIME = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:?\d\d(:?\d\d)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)
"""What Arrow's reader of JSON takes for a time."""
AS_TIME = "a text is a date alone, of which the library's reader of JSON may make a time"

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """A positive or a negative of a row."""

    item: Item
    row: int
    """Of the item, in items.parquet."""
    judged: Judged
    label: float | None
    """The judge's score, as training takes it, in [0, 1]; None where nobody judged."""

    @property
    def repeats(self) -> bool:
        """Whether it stands in its row already, and only fills it up."""
        return isinstance(self.judged, Negative) and self.judged.duplicate


@dataclass(frozen=True)
class TrainingRow:
    """One training row with its contents."""

    query: Query
    positive: Candidate
    negatives: list[Candidate]
    extra_positives: list[Candidate]

    @property
    def distinct_negatives(self) -> list[Candidate]:
        """The negatives, each once: a foreign layout has no mark for one that fills a row up."""
        return [negative for negative in self.negatives if not negative.repeats]

    @property
    def entries(self) -> list[Query | Item]:
        """The query, the positive, the negatives."""
        return [self.query, self.positive.item, *(negative.item for negative in self.negatives)]

    def holds(self, tags: Iterable[str]) -> bool:
        """Whether a text of the row contains one of these, which the receiving library would take for its own."""
        return any(tag in (entry.text or "") for entry in self.entries for tag in tags)

    def holds_time(self) -> bool:
        """Whether a text of the row is a date or a time alone.

        `datasets` reads JSON in blocks, and where all texts in a place of a block are such, it makes times of them:
        a training would see `2024-01-01 00:00:00`, or no text at all.
        """
        return any(TIME.fullmatch(entry.text or "") for entry in self.entries)


class LeftOut(Exception):
    """This row is not written; the message says why."""


@dataclass
class Count:
    """The rows that one reason kept out."""

    first: str
    """The first one's query."""
    rows: int = 0


class TrainingRows:
    """The rows of one selection in order, and the count of what became of them."""

    def __init__(self, triples: Path, corpus: Path, *, image_root: str | None = None, skip_suspects: bool = False):
        """Opens both folders.

        Args:
            triples: What `mine select` wrote.
            corpus: The corpus that it was selected from.
            image_root: What image paths begin with in the place of the corpus' own root; empty: they stay relative.
            skip_suspects: Leave out rows whose positive the judge does not believe in.

        Raises:
            DataError: A folder is incomplete or damaged, or they do not belong together.
        """
        self.corpus = Corpus(corpus)
        self.manifest = read_json(triples / "triples.json", TripleManifest)
        self.manifest.check_corpus(triples, self.corpus.fingerprint)
        self.written = 0
        self.weighted = 0
        """Written rows whose weight in the loss is below 1: no layout has a place for it."""
        self.left_out: dict[str, Count] = {}
        """Reason → how often."""
        self.distinct: Counter[int] = Counter()
        """Number of distinct negatives → rows that have it, written or left out for having too few."""
        self._triples = triples
        self._image_root = image_root
        self._skip_suspects = skip_suspects
        self._find = lru_cache(maxsize=ITEMS_AT_HAND)(self._look_up)

    def export(self, make: Callable[[TrainingRow], T]) -> Iterator[T]:
        """Yields what `make` makes of each row, and counts anew.

        `make` raises `LeftOut` for a row that its layout cannot hold.

        Raises:
            DataError: A folder is damaged, or there is no row to write.
        """
        self.written = self.weighted = 0
        self.left_out = {}
        self.distinct = Counter()
        for triple in read_triples(self._triples, self.corpus.fingerprint):
            try:
                self._check(triple)
                self.distinct[sum(not one.duplicate for one in triple.negatives)] += 1
                made = make(self._row(triple))
            except LeftOut as reason:
                self.left_out.setdefault(str(reason), Count(triple.query_id)).rows += 1
                continue
            self.written += 1
            self.weighted += triple.weight < 1
            yield made
        if not self.written:
            reasons = "; ".join(f"{reason}: {left.rows}" for reason, left in self.left_out.items())
            raise DataError(
                f"{self._triples}: no row can be exported ({reasons or 'it has none'}), so nothing was written; select "
                "with other settings, or leave out less"
            )

    def _check(self, triple: Triple) -> None:
        if self._skip_suspects and triple.suspect:
            raise LeftOut("suspect positive")
        if triple.weight == 0:
            raise LeftOut("weight 0")
        if not triple.negatives:
            raise LeftOut("no negative")

    def score(self, row: TrainingRow, candidate: Candidate) -> float:
        """The soft label of a row's candidate, in [0, 1].

        Raises:
            DataError: The pair has no verdict.
        """
        if candidate.label is None:
            raise DataError(
                f"{self._triples}: query {row.query.query_id!r}: item {candidate.judged.item_id!r} has no verdict "
                f"({candidate.judged.error or 'it was chosen without a judge'}); select with a preset that asks the "
                "judge, or export without scores (--no-scores) where the layout can do without"
            )
        return candidate.label

    def image(self, entry: Item | Query) -> str | None:
        """Where the receiving library finds an entry's image; None where it has none.

        Raises:
            SettingsError: In an object store, and nobody said that it opens URLs.
        """
        if entry.image is None or self._image_root == "":
            return entry.image
        if self._image_root is None and not is_local(self.corpus.images):
            raise SettingsError(
                f"{self.corpus.images}: the images are in an object store, from which the receiving library may not "
                "read; set --image-root to where it will find them, or to this URL if it can open it"
            )
        root = str(self.corpus.images) if self._image_root is None else self._image_root
        return f"{root.rstrip('/')}/{entry.image}"

    def with_fewer(self, wanted: int) -> int:
        """How many rows have fewer distinct negatives."""
        return sum(rows for number, rows in self.distinct.items() if number < wanted)

    def check_negatives(self, wanted: int) -> None:
        """Refuses a number of negatives that no row has.

        Raises:
            SettingsError: The rows have fewer.
        """
        stored = self.manifest.negatives_in_row
        if wanted > stored:
            raise SettingsError(
                f"--negatives {wanted}: the rows of {self._triples} have {stored}; ask for fewer, or select with a "
                "larger `num_negatives`"
            )

    def _row(self, triple: Triple) -> TrainingRow:
        row = self.corpus.query_row_of.get(triple.query_id)
        if row is None:
            raise self._stranger(triple, "it")
        scales = self.manifest.scales
        positive, *labels = triple.labels(scales)
        return TrainingRow(
            query=self.corpus.queries[row],
            positive=self._candidate(triple, triple.positive, positive),
            negatives=[self._candidate(triple, *one) for one in zip(triple.negatives, labels, strict=True)],
            extra_positives=[self._candidate(triple, one, one.label(scales)) for one in triple.extra_positives],
        )

    def _candidate(self, triple: Triple, judged: Judged, label: float | None) -> Candidate:
        found = self._find(judged.item_id)
        if found is None:
            raise self._stranger(triple, f"item {judged.item_id!r}")
        return Candidate(*found, judged, label)

    def _look_up(self, item_id: str) -> tuple[Item, int] | None:
        row = self.corpus.row_of.get(item_id)
        return None if row is None else (self.corpus.items[row], row)

    def _stranger(self, triple: Triple, what: str) -> DataError:
        return DataError(
            f"{self._triples}: query {triple.query_id!r}: {what} is not in {self.corpus.folder}; one of the folders is "
            "damaged: select again"
        )


def check_out(out: Path, suffix: str) -> None:
    """Refuses an output that the receiving library would not read, or that would replace something.

    Raises:
        SettingsError: It has another ending.
        DataError: It exists.
    """
    if out.suffix != suffix:
        raise SettingsError(f"{out}: the receiving library reads {suffix} files; give the output that ending")
    check_free(out)


def check_free(out: Path) -> None:
    """Refuses an output that would replace something.

    Raises:
        DataError: It exists.
    """
    if exists(out):
        raise taken(out)


def write_jsonl(out: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Publishes one JSON object a line, as they come."""
    with publishing(out) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
