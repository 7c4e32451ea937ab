"""The report of `judge bench`: Markdown tables for a terminal, and a page. All sentences are made from the numbers."""

from collections.abc import Sequence
from pathlib import Path

from judge_service.bench.figures import YES, Figures, ScoredPairs, name_of
from judge_service.bench.injection import CONTROL, Injections
from judge_service.bench.result import Bench
from unijudge.foreign.cells import Side
from unijudge.judging.verdicts import Verdict
from unijudge.pages.charts import curves, histogram
from unijudge.pages.markdown import table
from unijudge.pages.pages import page

TEMPLATE = Path(__file__).with_name("bench.html.jinja")
FIGURE_HEAD = [
    "pairs", "match", "others", "ROC-AUC", "95 %", "calibration error", "ties", "Yes", "Yes of matches",
    "Yes of others", "label mass", "no verdict",
]  # fmt: skip
INJECTION_HEAD = [
    "text added",
    "judged again",
    "flipped to Yes",
    "share",
    "95 %",
    "change of score",
]
SHOWN = 5
"""The number of pairs that the page shows for each kind of mistake."""
LONGEST_TEXT = 200
"""The number of characters that the page shows of a text."""
NOTHING = "–"


def lines_of(made: Bench) -> str:
    """Returns two tables in Markdown, each with a sentence that helps to read the table."""
    parts = [
        f"{made.identity}",
        table(FIGURE_HEAD, map(_row, made.figures)),
        f"95 % intervals of ROC-AUC: {made.interval}.",
    ]
    if made.injections is not None:
        parts += [table(INJECTION_HEAD, _injection_rows(made.injections)), _told(made.injections)]
    return "\n\n".join(parts)


def page_of(made: Bench, scored: Sequence[ScoredPairs]) -> str:
    """Returns the page: figures, calibration curve, scores, injections, mistakes."""
    whole = made.figures[0]
    judged = [(pair, pair.answer) for pair in scored if isinstance(pair.answer, Verdict)]

    # Points of a calibrated judge lie on the diagonal.
    calibration = curves(
        {
            "this judge": [(point.score, point.matches) for point in whole.calibration],
            "calibrated": [(0.0, 0.0), (1.0, 1.0)],
        },
        x_label="score",
        y_label="matches",
    )
    scores = histogram(
        {
            "match": [verdict.score for one, verdict in judged if one.pair.match],
            "do not match": [verdict.score for one, verdict in judged if not one.pair.match],
        },
        low=0.0,
        high=1.0,
        x_label="score",
        mark=(YES, "Yes"),
    )
    return page(
        TEMPLATE,
        made=made,
        whole=whole,
        heading=FIGURE_HEAD,
        rows=[_row(group) for group in made.figures],
        calibration=calibration,
        scores=scores,
        injection_head=INJECTION_HEAD,
        injection_rows=[] if made.injections is None else _injection_rows(made.injections),
        told=None if made.injections is None else _told(made.injections),
        mistakes={
            "Pairs that do not match, with the highest scores": _mistakes(judged, match=False),
            "Matches with the lowest scores": _mistakes(judged, match=True),
        },
    )


def _row(group: Figures) -> list[str]:
    return [
        name_of(group.subset, group.kind),
        f"{group.matches:,}",
        f"{group.negatives:,}",
        number(group.roc_auc),
        _interval(group.roc_auc_interval),
        number(group.calibration_error),
        number(group.ties),
        number(group.yes),
        number(group.yes_of_matches),
        number(group.yes_of_negatives),
        number(group.label_mass),
        _reasons(group),
    ]


def _reasons(group: Figures) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in group.without_verdict.items()) or "0"


def _injection_rows(made: Injections) -> list[list[str]]:
    return [
        [
            f"{flips.name} (harmless)" if flips.name == CONTROL else flips.name,
            f"{flips.pairs:,}",
            f"{flips.flipped:,}",
            number(flips.share),
            _interval(flips.interval),
            NOTHING if flips.score_change is None else f"{flips.score_change:+.3f}",
        ]
        for flips in made.texts
    ]


def _told(made: Injections) -> str:
    """Returns the result of the injections, in sentences."""
    sample = "all" if made.candidates == made.of else f"{made.candidates:,} of"
    (harmless,) = (flips for flips in made.texts if flips.name == CONTROL)
    comparison = "" if harmless.share is None else f", the harmless text {harmless.share:.1%}"
    return (
        f"Each text was added to {sample} {made.of:,} candidates that do not match and got a No. At least one of the "
        f"ten texts that ask for a Yes turned {made.any_text:.1%} of these verdicts into a Yes{comparison}."
    )


def _mistakes(
    judged: Sequence[tuple[ScoredPairs, Verdict]], *, match: bool
) -> list[tuple[str, str, str, str, str]]:
    """Returns the worst scores of pairs with one label: place, kind, score, query and candidate."""
    # The worst match has the lowest score; the worst negative has the highest.
    labelled = [(scored.pair, verdict) for scored, verdict in judged if scored.pair.match is match]
    ascending = sorted(labelled, key=lambda labelled_pair: labelled_pair[1].log_odds)
    worst = ascending[:SHOWN] if match else ascending[::-1][:SHOWN]

    rows = []
    for pair, verdict in worst:
        rows.append(
            (
                pair.place,
                pair.kind or "",
                f"{verdict.score:.3f}",
                _shown(pair.query),
                _shown(pair.candidate),
            )
        )
    return rows


def _shown(side: Side) -> str:
    parts = []
    if isinstance(side.image, str):
        parts.append(side.image)
    elif side.image:
        parts.append("(picture in the row)")
    if side.text:
        parts.append(f"“{' '.join(side.text.split())[:LONGEST_TEXT]}”")
    return " ".join(parts)


def number(value: float | None) -> str:
    """Returns a figure with three decimals, or a dash for None."""
    return NOTHING if value is None else f"{value:.3f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return NOTHING if ends is None else f"{ends[0]:.3f} … {ends[1]:.3f}"
