"""Computes the results of the demo from its folders, and writes results.json.

    python -m demo.report.results FOLDER

Every number is computed here from the output of the commands. `demo.report.story` turns the numbers into sentences.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demo.commands import SELECTIONS, STUDENTS
from demo.pairs import areas_of
from miner.selection.negatives import PRESETS, score_of
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.formats.labelled_scores import read_labelled
from unijudge.formats.rankings import read_rankings
from unijudge.formats.scores import Judged, read_scores
from unijudge.formats.triples import read_triples
from unijudge.storage.files import publish_text

NEGATIVES = 8
"""Number of negatives per row in the training of the students."""
BETA = PRESETS["unime-v2"].betas[0]
Floats = npt.NDArray[np.float64]


class Truth:
    """The ground truth of one training world: the correct candidates of each query."""

    @classmethod
    def of_seed(cls, out: Path, seed: int) -> "Truth":
        """Reads the ground truth of a training world of the demo."""
        return cls(out / f"train-{seed}" / "corpus", out / "data" / f"train-{seed}")

    def __init__(self, corpus: Path, data: Path):
        """Reads a corpus, and the ground truth that `demo.data` wrote."""
        self.corpus = Corpus(corpus)
        self._right: set[tuple[str | None, ...]] = set()
        for line in (data / "truth.jsonl").read_text().splitlines():
            row = json.loads(line)
            names = ("query_text", "query_image", "positive_text", "positive_image")
            self._right.add(tuple(row[name] or None for name in names))
        self._queries = {query.query_id: query for query in self.corpus.queries}

    def is_right(self, query: Query, judged: Judged) -> bool:
        """Returns whether a candidate is correct for a query."""
        item = self.item(judged)
        return (query.text, query.image, item.text, item.image) in self._right

    def query(self, query_id: str) -> Query:
        """Returns a query by its id."""
        return self._queries[query_id]

    def item(self, judged: Judged) -> Item:
        """Returns the item of a judged pair."""
        return self.corpus.items[self.corpus.row_of[judged.item_id]]


@dataclass(frozen=True)
class Mined:
    """One judged candidate."""

    subset: str
    margin: float
    """Score of the candidate minus score of the query's positive."""
    right: bool
    """Whether the candidate is in fact correct, so that it would be a false negative."""


def mined(truth: Truth, folder: Path) -> Iterator[Mined]:
    """Yields every judged candidate of a training world."""
    for row in read_scores(folder / "scores"):
        scores = [score_of(positive) for positive in row.positives if positive.error is None]
        if not scores:
            continue  # selection also skips such a row
        best, query = max(scores), truth.query(row.query_id)
        for candidate in (candidate for candidate in row.candidates if candidate.error is None):
            yield Mined(row.subset, score_of(candidate) - best, truth.is_right(query, candidate))


def false_negatives(out: Path, seeds: int) -> dict[str, Any]:
    """Returns the shares of false negatives among the candidates and in each selection, and the filter's recall."""
    candidates: list[Mined] = []
    chosen: dict[str, list[bool]] = defaultdict(list)
    for seed in range(seeds):
        truth, folder = Truth.of_seed(out, seed), out / f"train-{seed}"
        candidates += mined(truth, folder)
        for name in SELECTIONS:
            for row in read_triples(folder / name, truth.corpus.fingerprint):
                query = truth.query(row.query_id)
                chosen[name] += [
                    truth.is_right(query, negative) for negative in row.negatives[:NEGATIVES]
                ]
    subsets = sorted({candidate.subset for candidate in candidates})
    return {
        **_filtered(candidates),
        "by_task": {
            name: _filtered([c for c in candidates if c.subset == name]) for name in subsets
        },
        "rate": {"top_k": _share([c.right for c in candidates])}
        | {name: _share(flags) for name, flags in chosen.items()},
    }


def _filtered(candidates: Sequence[Mined]) -> dict[str, float | None]:
    dropped = [c.right for c in candidates if c.margin > -BETA]
    return {
        "recall": _share([c.margin > -BETA for c in candidates if c.right]),
        "precision": _share(dropped),
        "dropped": _share([c.margin > -BETA for c in candidates]),
    }


def firsts(out: Path, name: str) -> dict[str, Floats]:
    """Returns task → an array with 1 for each query whose first item is correct, else 0."""
    found: dict[str, list[float]] = defaultdict(list)
    for ranking in read_rankings(out / "eval" / name / "rankings.parquet"):
        found[ranking.subset].append(float(ranking.gold_rank == 1))
    return {task: np.array(values) for task, values in sorted(found.items())}


def student_firsts(out: Path, name: str, seeds: int) -> list[dict[str, Floats]]:
    """Returns the result of `firsts` for each seed of a student. The base has one seed."""
    if name == "base":
        return [firsts(out, "base-metrics")]
    return [firsts(out, f"{name}-{seed}-metrics") for seed in range(seeds)]


def students(out: Path, seeds: int) -> dict[str, Any]:
    """Returns precision@1 of every student and task. `mean` is the mean over tasks."""
    made: dict[str, Any] = {}
    for name in ("base", *STUDENTS):
        runs = [_precisions(run) for run in student_firsts(out, name, seeds)]
        made[name] = {
            task: {"precision_at_1": _spread([run[task] for run in runs])} for task in runs[0]
        }
    return made


def rerank(out: Path) -> dict[str, dict[str, float]]:
    """Returns precision@1 in the order of base, judge and reranker, and the gains and losses of reranking."""
    before = firsts(out, "base-metrics")
    after = {name: firsts(out, f"rerank-{name}") for name in ("judge", "reranker")}
    made: dict[str, dict[str, float]] = {}
    for task, first in before.items():
        made[task] = {"before": float(first.mean())}
        for name, runs in after.items():
            made[task][name] = float(runs[task].mean())
            made[task][f"{name}_gained"] = float(((first == 0) & (runs[task] == 1)).mean())
            made[task][f"{name}_lost"] = float(((first == 1) & (runs[task] == 0)).mean())
    made["mean"] = {
        key: float(np.mean([made[task][key] for task in before]))
        for key in made[next(iter(before))]
    }
    return made


def reranker_terms(out: Path) -> dict[str, dict[str, float]]:
    """Returns both losses of the reranker in nats, as means over the first and the last ten steps."""
    lines = [
        json.loads(line) for line in (out / "runs/reranker/metrics.jsonl").read_text().splitlines()
    ]
    ends = {"first": lines[:10], "last": lines[-10:]}
    return {
        term: {end: float(np.mean([line[term] for line in some])) for end, some in ends.items()}
        for term in ("pairwise", "listwise")
    }


def compare(
    left: Sequence[dict[str, Floats]], right: Sequence[dict[str, Floats]]
) -> dict[str, float]:
    """Returns the difference right − left of the mean over tasks, and twice its standard error.

    Both sides have the same queries, and the same training world for each seed. So differences are taken per query and
    per seed. The error includes the variance over queries and, with several seeds, the variance over seeds. A side with
    one run is compared with each run of the other side.
    """
    seeds, tasks = max(len(left), len(right)), list(left[0])
    by_seed = [
        {task: after[task] - before[task] for task in tasks}
        for before, after in zip(_repeated(left, seeds), _repeated(right, seeds), strict=True)
    ]
    by_task = {task: np.mean([run[task] for run in by_seed], axis=0) for task in tasks}
    variance = (
        sum(float(values.var(ddof=1)) / len(values) for values in by_task.values())
        / len(tasks) ** 2
    )
    if seeds > 1:
        totals = [float(np.mean([run[task].mean() for task in tasks])) for run in by_seed]
        variance += float(np.var(totals, ddof=1)) / seeds
    return {
        "difference": float(np.mean([v.mean() for v in by_task.values()])),
        "error": 2 * variance**0.5,
    }


def _repeated(runs: Sequence[dict[str, Floats]], seeds: int) -> Sequence[dict[str, Floats]]:
    return runs if len(runs) == seeds else [*runs] * seeds


def _precisions(run: dict[str, Floats]) -> dict[str, float]:
    by_task = {task: float(values.mean()) for task, values in run.items()}
    return by_task | {"mean": float(np.mean(list(by_task.values())))}


def _spread(values: Sequence[float]) -> dict[str, float | int | None]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "seeds": len(values)}


def _share(flags: Sequence[bool]) -> float | None:
    return float(np.mean(flags)) if flags else None


def collect(out: Path) -> dict[str, Any]:
    """Returns all results."""
    judge = json.loads((out / "judge" / "bench.json").read_text())
    fresh = list(read_labelled(out / "judge" / "scores.parquet"))
    seconds = json.loads((out / "seconds.json").read_text())
    seeds = len(list(out.glob("train-*")))
    areas = areas_of(fresh)
    sides = {
        "random": ("base", "infonce_random"),
        "unfiltered": ("infonce_random", "infonce_unfiltered"),
        "mined": ("infonce_random", "infonce_mined"),
        "chosen": ("infonce_unfiltered", "infonce_mined"),
        "soft": ("hard_labels", "soft_labels"),
    }
    runs = {name: student_firsts(out, name, seeds) for name in ("base", *STUDENTS)}
    reranked = {name: [firsts(out, f"rerank-{name}")] for name in ("judge", "reranker")}
    return {
        "judge": {
            "identity": judge["identity"],
            "roc_auc": areas.pop("all"),
            "roc_auc_hard": areas.pop("hard"),
            "by_kind": areas,
            "pairs": len(fresh),
        },
        "false_negatives": false_negatives(out, seeds),
        "students": students(out, seeds),
        "rerank": rerank(out),
        "reranker_terms": reranker_terms(out),
        "rerank_effects": {
            name: {
                task: compare([{task: runs["base"][0][task]}], [{task: found[0][task]}])
                for task in found[0]
            }
            for name, found in reranked.items()
        },
        "comparisons": {
            name: compare(runs[left], runs[right]) for name, (left, right) in sides.items()
        }
        | {
            "judge_reranks": compare(runs["base"], reranked["judge"]),
            "reranker_beats_judge": compare(reranked["judge"], reranked["reranker"]),
        },
        "stages": {name: {"seconds": round(took, 1)} for name, took in seconds.items()},
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    publish_text(folder / "results.json", json.dumps(collect(folder), indent=2) + "\n")
    print(f"Wrote {folder / 'results.json'}")
