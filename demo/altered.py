"""A selection with some of its negatives replaced, for studies of what negatives do.

    python -m demo.altered mixed ROWS OTHER CORPUS OUT --share 0.25
    python -m demo.altered planted ROWS SCORES CORPUS DATA OUT --share 0.25 [--filter]

`mixed` takes this share of each row's negatives from another selection of the same queries. `planted` puts candidates
that are truly right in their place; with `--filter` the judge may refuse them, as a selection does. How many were
replaced in the end stands in OUT/altered.json.
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
"""What may stand in the place of a row's negatives, best first."""


class Replacer:
    """Replaces a share of each row's first negatives, and counts."""

    def __init__(self, offer: Offer, share: float, seed: int):
        """Has replaced nothing yet."""
        self._offer = offer
        self._share = share
        self._dice = random.Random(f"altered {seed}")
        self.negatives = 0
        self.replaced = 0

    def row(self, triple: Triple) -> Triple:
        """The row with other negatives, at places that are drawn at random."""
        negatives = triple.negatives[:NEGATIVES]
        there = {negative.item_id for negative in negatives}
        offered = [one for one in self._offer(triple) if one.item_id not in there]
        places = self._dice.sample(range(len(negatives)), round(self._share * len(negatives)))
        for place, one in zip(places, offered, strict=False):
            negatives[place] = one
        self.negatives += len(negatives)
        self.replaced += min(len(places), len(offered))
        return replace(triple, negatives=negatives)


def of_another(rows: Path, corpus: Corpus) -> Offer:
    """The negatives of another selection of the same queries."""
    by_query = {row.query_id: row.negatives for row in read_triples(rows, corpus.fingerprint)}
    return lambda triple: by_query.get(triple.query_id, [])


def of_the_truth(scores: Path, truth: Truth, *, is_filtered: bool) -> Offer:
    """Candidates that are right, the most similar first; with the filter, those that the judge lets pass."""
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
    """Writes the selection anew, each row with its other negatives."""
    manifest = read_json(rows / "triples.json", TripleManifest)
    with publishing_folder(out) as draft:
        count = write_triples(draft, map(replacer.row, read_triples(rows, corpus.fingerprint)))
        found = {"rows": count, "negatives": replacer.negatives, "replaced": replacer.replaced}
        (draft / "altered.json").write_text(json.dumps(found))
        finish_triples(draft, manifest.model_copy(update={"negatives_in_row": NEGATIVES}))
    print(f"{out}: {replacer.replaced} of {replacer.negatives} negatives were replaced")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.altered")
    ways = parser.add_subparsers(dest="way", required=True)
    for way, places in {"mixed": ("rows", "other"), "planted": ("rows", "scores")}.items():
        one = ways.add_parser(way)
        for place in (*places, "corpus", *(["data"] if way == "planted" else []), "out"):
            one.add_argument(place, type=Path)
        one.add_argument("--share", type=float, required=True)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument(
            "--filter", action="store_true", help="planted: the judge may refuse what is planted"
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
