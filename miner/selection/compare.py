"""Compares a selection with another selection in one pass, for example the result of a cascade with a full run."""

from pathlib import Path

from unijudge.formats.corpus import Corpus
from unijudge.formats.triples import Triple, read_triples


class SelectionComparison:
    """Reads another selection's rows beside the rows of this selection. Both have the order of the corpus."""

    def __init__(self, other: Path, corpus: Corpus):
        """Opens the folder of the other selection.

        Raises:
            DataError: The folder is incomplete or belongs to a different corpus.
        """
        self._row_of = corpus.query_row_of
        self._others = read_triples(other, corpus.fingerprint)
        self._other = next(self._others, None)
        self._rows = self._same_rows = self._kept_rows = self._negatives = self._same_negatives = 0

    def add(self, triple: Triple) -> None:
        """Compares the next row of this selection."""
        row = self._row_of[triple.query_id]
        while self._other is not None and self._row_of[self._other.query_id] < row:
            self._pass(set())
        if self._other is not None and self._other.query_id == triple.query_id:
            self._kept_rows += 1
            self._same_rows += self._pass({negative.item_id for negative in triple.negatives})

    def table(self) -> dict[str, float]:
        """Returns shares of the other selection's rows and distinct negatives, in [0, 1]. Empty if it has no rows."""
        while self._other is not None:
            self._pass(set())
        if not self._rows or not self._negatives:
            return {}
        return {
            "compared: its rows kept here too": round(self._kept_rows / self._rows, 4),
            "compared: its rows with the same negatives": round(self._same_rows / self._rows, 4),
            "compared: its negatives chosen here too": round(
                self._same_negatives / self._negatives, 4
            ),
        }

    def _pass(self, ours: set[str]) -> bool:
        """Counts the other selection's current row and reads its next row.

        Args:
            ours: The negatives that this selection has for the same query.

        Returns:
            Whether both rows have the same negatives.
        """
        assert self._other is not None  # noqa: S101  every caller checks this
        theirs = {negative.item_id for negative in self._other.negatives}
        self._rows += 1
        self._negatives += len(theirs)
        self._same_negatives += len(theirs & ours)
        self._other = next(self._others, None)
        return theirs == ours
