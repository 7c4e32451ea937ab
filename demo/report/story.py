"""Turns results.json into sentences. The sentences depend only on the numbers, and report steps without effect, too."""

import math
from typing import Any

from unijudge.pages.terminal import aligned

CLAIMS = {
    "random": "Training with random negatives",
    "unfiltered": "Using the eight most similar candidates instead, without a filter,",
    "mined": "The whole selection (judge's filter and strides), compared with random negatives,",
    "chosen": "The whole selection, compared with the eight most similar candidates,",
    "soft": "The judge's scores as soft labels, compared with hard labels on the same rows,",
    "judge_reranks": "Reranking the base's ten best items with the unmodified judge",
    "reranker_beats_judge": "The trained reranker, compared with the judge that it was trained from,",
}
"""The subject of each comparison of `demo.report.results`. The measure is mean precision@1 over the tasks."""

GUESSING = sum(math.log(size) for size in range(2, 7)) / 5
"""Mean loss of random guessing over lists of 2 to 6 candidates, in nats."""
HOW = {
    "topk_unfiltered": "with the most similar candidates",
    "unime_v2": "with filter and strides",
    "random": "with random negatives",
}


def effect(comparison: dict[str, float]) -> str:
    """Returns the meaning of a difference, which is an effect only if it exceeds twice its standard error."""
    difference, error = comparison["difference"], comparison["error"]
    size = f"{difference:+.3f} ± {error:.3f}"
    if difference > error:
        return f"helped: {size}"
    if difference < -error:
        return f"did harm: {size}"
    return f"did not show an effect: {size}"


def table(results: dict[str, Any]) -> list[str]:
    """Returns a table as lines of text: precision@1 of every student, and of the reranked base."""
    tasks = [*(task for task in results["rerank"] if task != "mean"), "mean"]
    rows = [["precision@1", *tasks]]
    for name, values in results["students"].items():
        cells = [_cell(**values[task]["precision_at_1"]) for task in tasks]
        rows.append([name.replace("_", " "), *cells])
    for name in ("judge", "reranker"):
        cells = [f"{results['rerank'][task][name]:.3f}" for task in tasks]
        rows.append([f"base, reranked by {name}", *cells])
    return aligned(rows)


def sentences(results: dict[str, Any]) -> list[str]:
    """Returns the findings as sentences, starting with the judge."""
    return [
        _judge(results["judge"]),
        *_filter(results["false_negatives"]),
        *_comparisons(results),
        *_rerank(results),
    ]


def _judge(judge: dict[str, Any]) -> str:
    weakest = min(judge["by_kind"], key=judge["by_kind"].get)
    return (
        f"On {judge['pairs']} new pairs the judge has a ROC-AUC of {judge['roc_auc']:.3f} over all pairs, and of "
        f"{judge['roc_auc_hard']:.3f} over replaced and swapped words only. Its weakest kind is {_plain(weakest)} "
        f"({judge['by_kind'][weakest]:.3f})."
    )


def _filter(found: dict[str, Any]) -> list[str]:
    rate = {name: _percent(share) for name, share in found["rate"].items()}
    *others, last = (f"{rate[name]} {how}" for name, how in HOW.items())
    among = f"{', '.join(others)}, and {last}"
    findings = [
        f"Of the candidates that the base retrieves, {rate['top_k']} are right answers without a label.",
        f"The share of such false negatives among the eight negatives of a row is {among}.",
    ]
    if found["recall"] is not None and found["precision"] is not None:
        price = " The others are the price of caution." if found["precision"] < 0.5 else ""
        dropped, recall, precision = (
            _percent(found[name]) for name in ("dropped", "recall", "precision")
        )
        findings.append(
            f"With β = 0.1 the filter drops {dropped} of the candidates, and {recall} of the false negatives. Of the "
            f"dropped candidates, {precision} are false negatives.{price}"
        )
    return findings


def _comparisons(results: dict[str, Any]) -> list[str]:
    return [f"{claim} {effect(results['comparisons'][name])}." for name, claim in CLAIMS.items()]


def _rerank(results: dict[str, Any]) -> list[str]:
    listwise = results["reranker_terms"]["listwise"]
    share = listwise["last"] / GUESSING
    learned = (
        "was learned"
        if share < 0.8
        else "is no better than guessing"
        if share <= 1.2
        else "was not learned"
    )
    change = f"The reranker's listwise loss went from {listwise['first']:.2f} to {listwise['last']:.2f} nats"
    return [
        f"{change}, and random guessing has {GUESSING:.2f}. This half {learned}.",
        *(
            f"On {task}, reranking with the {name} {effect(found)}."
            for name, tasks in results["rerank_effects"].items()
            for task, found in tasks.items()
            if found["difference"] < 0
        ),
    ]


def _cell(mean: float, std: float | None, seeds: int) -> str:
    return f"{mean:.3f}" if seeds == 1 else f"{mean:.3f} ± {std:.3f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _plain(kind: str) -> str:
    words = {"att": "attribute", "obj": "object", "rel": "relation"}
    return " ".join(words.get(word, word) for word in kind.split("_"))
