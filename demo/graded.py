"""Computes the graded nDCG of an evaluation: the gain of an item depends on the share of the caption that is true.

    python -m demo.graded DATA CORPUS EVALUATION OUT      writes OUT/graded.json

The gain is 2^(4·share) − 1. A completely true caption has a gain of 15, a caption with three of four true statements 7,
and a half true caption 3. Source of nDCG: Järvelin and Kekäläinen, "Cumulated gain-based
evaluation of IR techniques", ACM TOIS 20(4), 2002.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demo.data import TO_IMAGE, TO_TEXT
from demo.teaching.lessons import FIND_IMAGE
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.formats.rankings import read_rankings
from unijudge.storage.files import publishing_folder

Floats = npt.NDArray[np.float64]
CUTOFF = 10


class Grades:
    """The share of each caption that is true of each image of a data set."""

    def __init__(self, data: Path):
        """Reads the shares that `demo.data` wrote."""
        kept = np.load(data / "grades.npz")
        self._shares = kept["percent"] / 100
        self._row = {str(text): row for row, text in enumerate(kept["texts"])}

    def of(self, query: Query, items: list[Item]) -> tuple[Floats, Floats]:
        """Returns the shares of the items in their order, and the shares of all possible items, best first."""
        if query.subset == TO_IMAGE:
            of_all = self._shares[self._row[(query.text or "").removeprefix(FIND_IMAGE)]]
            found = of_all[[_number(item.image) for item in items]]
        else:
            of_all = self._shares[list(self._row.values()), _number(query.image)]
            found = self._shares[
                [self._row[item.text or ""] for item in items], _number(query.image)
            ]
        return found, np.sort(of_all)[::-1]


def ndcg(found: Floats, best: Floats) -> float:
    """Returns the nDCG of the first ten items, from their shares of true statements.

    Example:
        >>> ndcg(np.array([1.0, 0.0]), np.array([1.0, 0.0])), round(ndcg(np.array([0.0, 1.0]), np.array([1.0, 0.0])), 3)
        (1.0, 0.631)
    """
    return _gained(found) / _gained(best)


def _gained(shares: Floats) -> float:
    gains = 2 ** (4 * shares[:CUTOFF]) - 1
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _number(name: str | None) -> int:
    """Returns the number of an image, from its name."""
    return int(Path(name or "").stem)


def main(data: Path, corpus_folder: Path, evaluation: Path, out: Path) -> None:
    """Computes the graded nDCG of one evaluation, and writes it to OUT/graded.json."""
    corpus, grades = Corpus(corpus_folder), Grades(data)
    queries = {query.query_id: query for query in corpus.queries}
    values: dict[str, list[float]] = defaultdict(list)
    for ranking in read_rankings(evaluation / "rankings.parquet"):
        if ranking.subset in (TO_IMAGE, TO_TEXT):
            items = [corpus.items[corpus.row_of[item_id]] for item_id in ranking.item_ids]
            values[ranking.subset].append(ndcg(*grades.of(queries[ranking.query_id], items)))
    means = {subset: float(np.mean(found)) for subset, found in sorted(values.items())}
    text = json.dumps(
        {"graded_ndcg@10": float(np.mean(list(means.values()))), "subsets": means}, indent=1
    )
    with publishing_folder(out) as draft:
        (draft / "graded.json").write_text(text + "\n")
    print(f"{out}: graded nDCG@{CUTOFF} {text}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
