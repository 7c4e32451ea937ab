"""One static HTML page of what a selection makes of the scores: rows with pictures, verdicts and their reasons.

It opens from a disk, without a server and without a network. Its counts and charts are over all rows that were read;
the rows that it shows are a sample, which is all that is held in memory. A person's overrides leave it as a file of
`overrides`. It selects nothing that is kept: `mine select` does.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from miner.inspection.explain import VIEWS, View, views_of
from miner.inspection.labels import LabelSample
from miner.inspection.payload import PagePayload, shown_rows
from miner.inspection.sample import FILES, Sample
from miner.inspection.settings import InspectSettings
from miner.selection.inputs import Sources
from miner.selection.negatives import SelectionOutcome, rule_of, select_negatives
from unijudge.formats.corpus import Corpus
from unijudge.pages.charts import bars, bin_of
from unijudge.pages.pages import Script, data, page
from unijudge.storage.files import publish_text
from unijudge.storage.outputs import check_file

HISTOGRAM_BINS = 40
MARK = b'<meta name="generator" content="unijudge mine inspect">'
"""Stands in every page: by it an older one is known, and may be replaced."""
HERE = Path(__file__).parent


@dataclass
class PageCounts:
    """Over all rows that were read; the charts' bins too, since the values would not fit."""

    reasons: Counter[str] = field(default_factory=Counter)
    views: Counter[View] = field(default_factory=Counter)
    candidates: int = 0
    dropped: int = 0
    without_verdict: int = 0
    scores: dict[str, list[int]] = field(
        default_factory=lambda: {"positives": [0] * HISTOGRAM_BINS, "candidates": [0] * HISTOGRAM_BINS}
    )
    margins: dict[str, list[int]] = field(default_factory=lambda: {"candidates": [0] * HISTOGRAM_BINS})

    def add(self, choice: SelectionOutcome, views: list[View]) -> None:
        """Counts one row; margins are of the first k candidates, those that selection sees."""
        case = choice.resolved.case
        query = case.query
        self.reasons[choice.reason] += 1
        self.views.update(views)
        self.candidates += len(query.candidates)
        self.dropped += choice.dropped
        self.without_verdict += sum(judged.log_odds is None for judged in (*query.positives, *query.candidates))
        for name in ("positives", "candidates"):
            for judged in getattr(query, name):
                if judged.log_odds is not None:
                    self.scores[name][bin_of(case.scales[0].score(judged), 0.0, 1.0, HISTOGRAM_BINS)] += 1
        for one in choice.resolved.candidates:
            if one.score is not None and one.positive is not None and not one.overruled:
                self.margins["candidates"][bin_of(one.positive - one.score, -1.0, 1.0, HISTOGRAM_BINS)] += 1


def inspect(settings: InspectSettings) -> str:
    """Writes the page, and says what it holds.

    Raises:
        DataError: The folders do not belong together, the scores are not whole, or `out` is something else than such a
            page.
        SettingsError: The rows do not fit into `max_mb`.
    """
    check_file(settings.out, lambda data: MARK in data, "page of `mine inspect`")
    corpus = Corpus(settings.corpus)
    sources = Sources(settings, corpus)
    sources.check_margins(rule_of(settings).betas)
    counts = PageCounts()
    sample: Sample[SelectionOutcome] = Sample(settings.rows, settings.seed)
    to_label = LabelSample(settings.label, settings.seed)
    for case in sources.cases():
        choice = select_negatives(case, settings)
        views = views_of(choice, settings.num_negatives)
        counts.add(choice, views)
        sample.add(case.query.query_id, views, choice)
        to_label.add(case.query)
    shown = shown_rows(corpus, sample.rows(), to_label.pairs(), settings, sources)
    html = _page(settings, corpus, sources, counts, sample, shown)
    publish_text(settings.out, html)
    read, rows = sample.read.total(), sample.shown.total()
    return (
        f"{settings.out}: {rows:,} of {read:,} rows, {shown.pictures:,} pictures ({shown.left_out:,} left out, "
        f"{shown.broken:,} unreadable), {len(html.encode()) / 1e6:.1f} MB"
    )


def _page(
    settings: InspectSettings,
    corpus: Corpus,
    sources: Sources,
    counts: PageCounts,
    sample: Sample[SelectionOutcome],
    shown: PagePayload,
) -> str:
    in_view = Counter(VIEWS[place] for row in shown.values["rows"] for place in row["views"])
    return page(
        HERE / "inspect.html.jinja",
        settings=settings,
        corpus=corpus.manifest,
        folders=list(zip(settings.scores, sources.manifests, strict=True)),
        rule=rule_of(settings),
        counts=counts,
        views=[(view, counts.views[view], in_view[view]) for view in VIEWS],
        files=[(file, sample.read[file], sample.shown[file]) for file in FILES if sample.read[file]],
        read=sample.read.total(),
        rows=sample.shown.total(),
        shown=shown,
        subsets=sorted({row["subset"] for row in shown.values["rows"]}),
        score_chart=_scores(settings, counts),
        margin_chart=_margins(settings, counts),
        data=data("rows", shown.values),
        script=Script(
            "".join((HERE / name).read_text(encoding="utf-8") for name in ("overrides.js", "labels.js", "inspect.js"))
        ),
    )


def _scores(settings: InspectSettings, counts: PageCounts) -> str:
    mark = (settings.suspect_below, f"{settings.suspect_below:g}: a positive below is suspect")
    return bars(counts.scores, low=0.0, high=1.0, x_label="judge score", mark=mark)


def _margins(settings: InspectSettings, counts: PageCounts) -> str:
    betas = rule_of(settings).betas
    mark = (betas[0], f"α, at β = {betas[0]:g}: left of it, dropped") if betas else (0.0, "as good as the positive")
    label = "score of the positive minus score of the candidate"
    return bars(counts.margins, low=-1.0, high=1.0, x_label=label, mark=mark)
