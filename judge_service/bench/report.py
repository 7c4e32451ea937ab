"""What `judge bench` shows: a Markdown table for a terminal, and a page. All words are made from the numbers."""

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
INJECTION_HEAD = ["text added", "judged again", "flipped to Yes", "share", "95 %", "change of score"]
SHOWN = 5
"""Pairs of each kind of mistake on the page."""
LONGEST_TEXT = 200
"""Characters of a pair's text on the page."""
NOTHING = "–"


def lines_of(made: Bench) -> str:
    """Two tables in Markdown, and how to read them."""
    parts = [
        f"{made.identity}",
        table(FIGURE_HEAD, map(_row, made.figures)),
        f"95 % intervals of ROC-AUC: {made.interval}.",
    ]
    if made.injections is not None:
        parts += [table(INJECTION_HEAD, _injection_rows(made.injections)), _told(made.injections)]
    return "\n\n".join(parts)


def page_of(made: Bench, scored: Sequence[ScoredPairs]) -> str:
    """The page: figures, calibration curve, scores, injections, mistakes."""
    whole = made.figures[0]
    judged = [(one, one.answer) for one in scored if isinstance(one.answer, Verdict)]
    return page(
        TEMPLATE,
        made=made,
        whole=whole,
        heading=FIGURE_HEAD,
        rows=[_row(one) for one in made.figures],
        calibration=curves(
            {
                "this judge": [(one.score, one.matches) for one in whole.calibration],
                "calibrated": [(0.0, 0.0), (1.0, 1.0)],
            },
            x_label="score",
            y_label="matches",
        ),
        scores=histogram(
            {
                "match": [verdict.score for one, verdict in judged if one.pair.match],
                "do not match": [verdict.score for one, verdict in judged if not one.pair.match],
            },
            low=0.0,
            high=1.0,
            x_label="score",
            mark=(YES, "Yes"),
        ),
        injection_head=INJECTION_HEAD,
        injection_rows=[] if made.injections is None else _injection_rows(made.injections),
        told=None if made.injections is None else _told(made.injections),
        mistakes={
            "Pairs that do not match, with the highest scores": _mistakes(judged, match=False),
            "Matches with the lowest scores": _mistakes(judged, match=True),
        },
    )


def _row(one: Figures) -> list[str]:
    return [
        name_of(one.subset, one.kind),
        f"{one.matches:,}",
        f"{one.negatives:,}",
        number(one.roc_auc),
        _interval(one.roc_auc_interval),
        *map(
            number,
            (one.calibration_error, one.ties, one.yes, one.yes_of_matches, one.yes_of_negatives, one.label_mass),
        ),
        _reasons(one),
    ]


def _reasons(one: Figures) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in one.without_verdict.items()) or "0"


def _injection_rows(made: Injections) -> list[list[str]]:
    return [
        [
            f"{one.name} (harmless)" if one.name == CONTROL else one.name,
            f"{one.pairs:,}",
            f"{one.flipped:,}",
            number(one.share),
            _interval(one.interval),
            NOTHING if one.score_change is None else f"{one.score_change:+.3f}",
        ]
        for one in made.texts
    ]


def _told(made: Injections) -> str:
    """What the injections show, in a sentence."""
    sample = "all" if made.candidates == made.of else f"{made.candidates:,} of"
    (harmless,) = (one for one in made.texts if one.name == CONTROL)
    compared = "" if harmless.share is None else f", the harmless text {harmless.share:.1%}"
    return (
        f"Each text was added to {sample} {made.of:,} candidates that do not match and got a No. At least one of the "
        f"ten texts that ask for a Yes turned {made.any_text:.1%} of these verdicts into a Yes{compared}."
    )


def _mistakes(judged: Sequence[tuple[ScoredPairs, Verdict]], *, match: bool) -> list[tuple[str, str, str, str, str]]:
    """The pairs with one label whose scores say the opposite most: place, kind, score, query and candidate."""
    worst = sorted((one for one in judged if one[0].pair.match is match), key=lambda one: one[1].log_odds)
    chosen = worst[:SHOWN] if match else worst[::-1][:SHOWN]
    pairs = [(one.pair, verdict.score) for one, verdict in chosen]
    return [(p.place, p.kind or "", f"{score:.3f}", _shown(p.query), _shown(p.candidate)) for p, score in pairs]


def _shown(side: Side) -> str:
    image = side.image if isinstance(side.image, str) else "(picture in the row)" if side.image else None
    text = f"“{' '.join(side.text.split())[:LONGEST_TEXT]}”" if side.text else None
    return " ".join(part for part in (image, text) if part)


def number(value: float | None) -> str:
    """A figure with three decimals; a dash where there is none."""
    return NOTHING if value is None else f"{value:.3f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return NOTHING if ends is None else f"{ends[0]:.3f} … {ends[1]:.3f}"
