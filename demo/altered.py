"""Replaces some of the negatives of a selection, for studies on the effect of negatives.

    python -m demo.altered mixed ROWS OTHER CORPUS OUT --share 0.25
    python -m demo.altered planted ROWS SCORES CORPUS DATA OUT --share 0.25 [--filter]

`mixed` replaces this share of each row's negatives with negatives from another selection of the same queries. `planted`
replaces them with candidates that are in fact correct. With `--filter` the judge's filter may reject these candidates,
as in a selection. OUT/altered.json contains the number of replaced negatives.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from demo.report.results import BETA, NEGATIVES, Truth
from miner.selection.negatives import score_of
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import JudgedQuery, read_scores
from unijudge.formats.triples import (
    Negative,
    Triple,
    TripleManifest,
    finish_triples,
    read_triples,
    write_triples,
)
from unijudge.storage.files import publishing_folder, read_json

Offer = Callable[[Triple], list[Negative]]
"""Returns possible replacements for the negatives of a row, best first."""


class Replacer:
    """Replaces a share of each row's first negatives, and counts the replacements."""

    def __init__(self, offer: Offer, share: float, seed: int):
        """Starts with zero counts.

        Args:
            offer: Returns the possible replacements of a row.
            share: The share of negatives to replace.
            seed: The seed of the random positions.
        """
        self._offer = offer
        self._share = share
        self._dice = random.Random(f"altered {seed}")
        self.negatives = 0
        self.replaced = 0

    def row(self, triple: Triple) -> Triple:
        """Returns the row with replaced negatives at random positions."""
        negatives = triple.negatives[:NEGATIVES]
        present = {negative.item_id for negative in negatives}
        offered = [
            candidate for candidate in self._offer(triple) if candidate.item_id not in present
        ]
        places = self._dice.sample(range(len(negatives)), round(self._share * len(negatives)))
        for place, candidate in zip(places, offered, strict=False):
            negatives[place] = candidate
        self.negatives += len(negatives)
        self.replaced += min(len(places), len(offered))
        return replace(triple, negatives=negatives)


def of_another(rows: Path, corpus: Corpus) -> Offer:
    """Returns an offer with the negatives of another selection of the same queries."""
    by_query = {row.query_id: row.negatives for row in read_triples(rows, corpus.fingerprint)}
    return lambda triple: by_query.get(triple.query_id, [])


def of_the_truth(scores: Path, truth: Truth, *, is_filtered: bool) -> Offer:
    """Returns an offer with correct candidates, the most similar first. With the filter, only those that survive."""
    by_query = {row.query_id: list(_right(row, truth, is_filtered)) for row in read_scores(scores)}
    return lambda triple: by_query.get(triple.query_id, [])


def _right(row: JudgedQuery, truth: Truth, is_filtered: bool) -> Iterator[Negative]:
    query = truth.query(row.query_id)
    best = max(
        (score_of(positive) for positive in row.positives if positive.error is None), default=0.0
    )
    for candidate in row.candidates:
        if candidate.error is not None or not truth.is_right(query, candidate):
            continue
        if is_filtered and score_of(candidate) > best - BETA:
            continue
        yield Negative(**vars(candidate))


def write(rows: Path, out: Path, corpus: Corpus, replacer: Replacer) -> None:
    """Writes the selection with the replaced negatives."""
    manifest = read_json(rows / "triples.json", TripleManifest)
    with publishing_folder(out) as draft:
        count = write_triples(draft, map(replacer.row, read_triples(rows, corpus.fingerprint)))
        found = {"rows": count, "negatives": replacer.negatives, "replaced": replacer.replaced}
        (draft / "altered.json").write_text(json.dumps(found))
        finish_triples(draft, manifest.model_copy(update={"negatives_in_row": NEGATIVES}))
    print(f"{out}: {replacer.replaced} of {replacer.negatives} negatives were replaced")


def main() -> None:
    """Reads the command line and writes the altered selection."""
    parser = argparse.ArgumentParser(prog="python -m demo.altered")
    ways = parser.add_subparsers(dest="way", required=True)
    for way, places in {"mixed": ("rows", "other"), "planted": ("rows", "scores")}.items():
        one = ways.add_parser(way)
        for place in (*places, "corpus", *(["data"] if way == "planted" else []), "out"):
            one.add_argument(place, type=Path)
        one.add_argument("--share", type=float, required=True)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument(
            "--filter", action="store_true", help="planted: the judge may reject planted candidates"
        )
    given = parser.parse_args()
    if given.way == "mixed":
        corpus = Corpus(given.corpus)
        offer = of_another(given.other, corpus)
    else:
        truth = Truth(given.corpus, given.data)
        corpus = truth.corpus
        offer = of_the_truth(given.scores, truth, is_filtered=given.filter)
    write(given.rows, given.out, corpus, Replacer(offer, given.share, given.seed))


if __name__ == "__main__":
    main()
