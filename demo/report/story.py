"""What the numbers say, in sentences: made from results.json alone, so that a step that did not help is said not to."""

import math
from typing import Any

CLAIMS = {
    "random": "Training with random negatives",
    "unfiltered": "Taking the eight most similar candidates in their place, unfiltered,",
    "mined": "The whole selection (judge's filter and strides), against random negatives,",
    "chosen": "The whole selection, against the eight most similar candidates,",
    "soft": "The judge's scores as soft labels, against hard labels on the same rows,",
    "judge_reranks": "Reranking the base's ten best items by the judge as it comes",
    "reranker_beats_judge": "The trained reranker, against the judge that it started from,",
}
"""What each comparison of `demo.report.results` is about; its measure is mean precision@1 over the tasks."""

GUESSING = sum(math.log(size) for size in range(2, 7)) / 5
"""The mean loss, in nats, of who knows only how long a list of 2 to 6 candidates is."""
HOW = {
    "topk_unfiltered": "when the most similar are taken",
    "unime_v2": "with filter and strides",
    "random": "at random",
}


def effect(comparison: dict[str, float]) -> str:
    """What a difference means: more than twice its standard error, or nothing that this run can tell."""
    difference, error = comparison["difference"], comparison["error"]
    size = f"{difference:+.3f} ± {error:.3f}"
    if difference > error:
        return f"helped: {size}"
    if difference < -error:
        return f"did harm: {size}"
    return f"did not show an effect: {size}"


def table(results: dict[str, Any]) -> list[str]:
    """precision@1 of every student, and of the base's ten best items in other orders, as lines of text."""
    tasks = [*(task for task in results["rerank"] if task != "mean"), "mean"]
    lines = [f"{'precision@1':<28}" + "".join(f"{task:>16}" for task in tasks)]
    for name, values in results["students"].items():
        cells = (_cell(**values[task]["precision_at_1"]) for task in tasks)
        lines.append(f"{name.replace('_', ' '):<28}" + "".join(f"{cell:>16}" for cell in cells))
    for name in ("judge", "reranker"):
        cells = (f"{results['rerank'][task][name]:.3f}" for task in tasks)
        lines.append(
            f"{f'base, reranked by {name}':<28}" + "".join(f"{cell:>16}" for cell in cells)
        )
    return lines


def sentences(results: dict[str, Any]) -> list[str]:
    """The findings, the judge first."""
    return [
        _judge(results["judge"]),
        *_filter(results["false_negatives"]),
        *_comparisons(results),
        *_rerank(results),
    ]


def _judge(judge: dict[str, Any]) -> str:
    weakest = min(judge["by_kind"], key=judge["by_kind"].get)
    return (
        f"On {judge['pairs']} fresh pairs the judge reaches a ROC-AUC of {judge['roc_auc']:.3f} over all, and of "
        f"{judge['roc_auc_hard']:.3f} against replaced and swapped words alone; its weakest kind is {_plain(weakest)} "
        f"({judge['by_kind'][weakest]:.3f})."
    )


def _filter(found: dict[str, Any]) -> list[str]:
    rate = {name: _percent(share) for name, share in found["rate"].items()}
    among = ", ".join(f"{rate[name]} {how}" for name, how in HOW.items())
    told = [
        f"Of the candidates that the base finds, {rate['top_k']} are right answers that nobody labelled.",
        f"Among the eight negatives of a row such false negatives are {among}.",
    ]
    if found["recall"] is not None and found["precision"] is not None:
        price = ": the rest is the price of caution." if found["precision"] < 0.5 else "."
        dropped, recall, precision = (
            _percent(found[name]) for name in ("dropped", "recall", "precision")
        )
        told.append(
            f"At β = 0.1 the filter drops {dropped} of the candidates. It catches {recall} of the false negatives; of "
            f"what it drops, {precision} are false negatives{price}"
        )
    return told


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
    told = f"The reranker's listwise loss went from {listwise['first']:.2f} to {listwise['last']:.2f} nats"
    return [
        f"{told}, where guessing has {GUESSING:.2f}: this half {learned}.",
        *(
            f"On {task} reranking by the {name} {effect(found)}."
            for name, tasks in results["rerank_effects"].items()
            for task, found in tasks.items()
            if found["difference"] < 0
        ),
    ]


def _cell(mean: float, std: float | None, seeds: int) -> str:
    return f"{mean:.3f}" if seeds == 1 else f"{mean:.3f} ± {std:.3f}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}%"


def _plain(kind: str) -> str:
    words = {"att": "attribute", "obj": "object", "rel": "relation"}
    return " ".join(words.get(word, word) for word in kind.split("_"))
