"""Reads the rows of a selection with their contents, one at a time, for the exporters of all layouts.

Besides the corpus, only one block of rows is in memory. Rows that are left out are counted by reason, with the first
query of each reason. Images are not opened: an export contains image paths, under the root of the corpus or under a
root on the receiving machine.
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
"""Items in the cache. Many rows have the same labels and captions."""

TIME = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:?\d\d(:?\d\d)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)
"""Texts that Arrow's JSON reader converts to times."""
AS_TIME = "a text is only a date, which the library's JSON reader may convert to a time"

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """A positive or a negative of a row."""

    item: Item
    row: int
    """The row of the item in items.parquet."""
    judged: Judged
    label: float | None
    """The label for training, in [0, 1]; None without a verdict."""

    @property
    def repeats(self) -> bool:
        """Whether the candidate is a duplicate that fills up its row."""
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
        """The negatives without duplicates, because the layouts of other trainers cannot mark duplicates."""
        return [negative for negative in self.negatives if not negative.repeats]

    @property
    def entries(self) -> list[Query | Item]:
        """The query, the positive and the negatives."""
        return [self.query, self.positive.item, *(negative.item for negative in self.negatives)]

    def holds(self, tags: Iterable[str]) -> bool:
        """Returns whether a text of the row contains a tag that has a special meaning for the receiving library."""
        return any(tag in (entry.text or "") for entry in self.entries for tag in tags)

    def holds_time(self) -> bool:
        """Returns whether a text of the row is only a date or a time.

        `datasets` reads JSON in blocks. If all texts of a column in a block are dates, `datasets` converts them to
        times, and a training would see `2024-01-01 00:00:00` or no text at all.
        """
        return any(TIME.fullmatch(entry.text or "") for entry in self.entries)


class LeftOut(Exception):
    """This row is not written. The message is the reason."""


@dataclass
class Count:
    """The rows that are left out for one reason."""

    first: str
    """The query id of the first row."""
    rows: int = 0


class TrainingRows:
    """The rows of one selection in order, and the counts of written and left out rows."""

    def __init__(
        self,
        triples: Path,
        corpus: Path,
        *,
        image_root: str | None = None,
        skip_suspects: bool = False,
        min_rows: int = 1,
    ):
        """Opens both folders.

        Args:
            triples: The folder that `mine select` wrote.
            corpus: The corpus that the rows were selected from.
            image_root: The root of the image paths, instead of the corpus' root. If empty, paths stay relative.
            skip_suspects: Whether to leave out rows with a suspect positive.
            min_rows: The smallest number of rows of an export.

        Raises:
            DataError: A folder is incomplete or damaged, or the folders do not belong together.
        """
        self.corpus = Corpus(corpus)
        self.manifest = read_json(triples / "triples.json", TripleManifest)
        self.manifest.check_corpus(triples, self.corpus.fingerprint)
        self.written = 0
        self.weighted = 0
        """Number of written rows whose weight in the loss is below 1. No layout has a key for the weight."""
        self.left_out: dict[str, Count] = {}
        """Reason → rows that are left out."""
        self.distinct: Counter[int] = Counter()
        """Number of distinct negatives → number of rows, written or left out because they have too few."""
        self._triples = triples
        self._image_root = image_root
        self._skip_suspects = skip_suspects
        self._min_rows = min_rows
        self._find = lru_cache(maxsize=ITEMS_AT_HAND)(self._look_up)

    def export(self, make: Callable[[TrainingRow], T]) -> Iterator[T]:
        """Yields the result of `make` for each row, and resets the counts.

        `make` raises `LeftOut` for a row that does not fit into the layout.

        Raises:
            DataError: A folder is damaged, or there are fewer rows to write than `min_rows`.
        """
        self.written = self.weighted = 0
        self.left_out = {}
        self.distinct = Counter()
        for triple in read_triples(self._triples, self.corpus.fingerprint):
            try:
                self._check(triple)
                self.distinct[sum(not negative.duplicate for negative in triple.negatives)] += 1
                made = make(self._row(triple))
            except LeftOut as reason:
                self.left_out.setdefault(str(reason), Count(triple.query_id)).rows += 1
                continue
            self.written += 1
            self.weighted += triple.weight < 1
            yield made
        if self.written < self._min_rows:
            counts = [f"{reason}: {left.rows}" for reason, left in self.left_out.items()]
            reasons = "; ".join(counts) or "the folder has no rows"
            found = "no row" if not self.written else f"only {self.written:,}"
            wanted = "" if self._min_rows == 1 else f" of --min-rows {self._min_rows:,}"
            raise DataError(
                f"{self._triples}: {found}{wanted} can be exported ({reasons}), so nothing was written. Select with "
                "different settings, or leave out fewer rows"
            )

    def _check(self, triple: Triple) -> None:
        if self._skip_suspects and triple.suspect:
            raise LeftOut("suspect positive")
        if triple.weight == 0:
            raise LeftOut("weight 0")
        if not triple.negatives:
            raise LeftOut("no negative")

    def score(self, row: TrainingRow, candidate: Candidate) -> float:
        """Returns the soft label of a row's candidate, in [0, 1].

        Raises:
            DataError: The pair has no verdict.
        """
        if candidate.label is None:
            raise DataError(
                f"{self._triples}: query {row.query.query_id!r}: item {candidate.judged.item_id!r} has no verdict "
                f"({candidate.judged.error or 'it was chosen without a judge'}). Select with a preset that uses "
                "scores, or export without scores (--no-scores) if the layout allows it"
            )
        return candidate.label

    def image(self, entry: Item | Query) -> str | None:
        """Returns the path at which the receiving library finds an entry's image, or None without an image.

        Raises:
            SettingsError: The image is in an object store, and no image root is given.
        """
        if entry.image is None or self._image_root == "":
            return entry.image
        if self._image_root is None and not is_local(self.corpus.images):
            raise SettingsError(
                f"{self.corpus.images}: the images are in an object store, which the receiving library may not be able "
                "to read. Set --image-root to a folder with the images, or to this URL if the library can open URLs"
            )
        root = str(self.corpus.images) if self._image_root is None else self._image_root
        return f"{root.rstrip('/')}/{entry.image}"

    def with_fewer(self, wanted: int) -> int:
        """Returns the number of rows with fewer distinct negatives than `wanted`."""
        return sum(rows for number, rows in self.distinct.items() if number < wanted)

    def check_negatives(self, wanted: int) -> None:
        """Checks that rows have at least a number of negatives.

        Raises:
            SettingsError: The rows have fewer negatives.
        """
        stored = self.manifest.negatives_in_row
        if wanted > stored:
            raise SettingsError(
                f"--negatives {wanted}: the rows of {self._triples} have only {stored} negatives. Give a smaller "
                "number, or select with a larger `num_negatives`"
            )

    def _row(self, triple: Triple) -> TrainingRow:
        row = self.corpus.query_row_of.get(triple.query_id)
        if row is None:
            raise self._unknown(triple, "the query")
        scales = self.manifest.scales
        positive_label, *labels = triple.labels(scales)
        negatives = zip(triple.negatives, labels, strict=True)
        return TrainingRow(
            query=self.corpus.queries[row],
            positive=self._candidate(triple, triple.positive, positive_label),
            negatives=[self._candidate(triple, negative, label) for negative, label in negatives],
            extra_positives=[
                self._candidate(triple, extra, extra.label(scales))
                for extra in triple.extra_positives
            ],
        )

    def _candidate(self, triple: Triple, judged: Judged, label: float | None) -> Candidate:
        item_and_row = self._find(judged.item_id)
        if item_and_row is None:
            raise self._unknown(triple, f"item {judged.item_id!r}")
        return Candidate(*item_and_row, judged, label)

    def _look_up(self, item_id: str) -> tuple[Item, int] | None:
        row = self.corpus.row_of.get(item_id)
        return None if row is None else (self.corpus.items[row], row)

    def _unknown(self, triple: Triple, entry: str) -> DataError:
        return DataError(
            f"{self._triples}: query {triple.query_id!r}: {entry} is not in {self.corpus.folder}, so one of these "
            "folders is damaged. Select again"
        )


def check_out(out: Path, suffix: str) -> None:
    """Checks that the receiving library reads files with this ending, and that the output does not exist.

    Raises:
        SettingsError: The output has a different ending.
        DataError: The output exists.
    """
    if out.suffix != suffix:
        raise SettingsError(
            f"{out}: the receiving library reads only {suffix} files. Give an output that ends in {suffix}"
        )
    check_free(out)


def check_free(out: Path) -> None:
    """Checks that the output does not exist.

    Raises:
        DataError: The output exists.
    """
    if exists(out):
        raise taken(out)


def write_jsonl(out: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, without collecting the objects in memory."""
    with publishing(out) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
