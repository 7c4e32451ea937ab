"""Writes a static HTML page that shows the outcome of a selection: rows with images, scores and reasons.

The page opens from a disk, without a server or a network. Its counts and charts cover all rows. The rows on the page
are a sample, and only the sample is held in memory. A person exports overrides from the page as a file. The page writes
no training rows; `mine select` does.
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
"""A mark in every page. An existing file with this mark may be overwritten."""
HERE = Path(__file__).parent


@dataclass
class PageCounts:
    """The counts and the charts' bins of all rows. The values of all rows would not fit in memory."""

    reasons: Counter[str] = field(default_factory=Counter)
    views: Counter[View] = field(default_factory=Counter)
    candidates: int = 0
    dropped: int = 0
    without_verdict: int = 0
    scores: dict[str, list[int]] = field(
        default_factory=lambda: {
            "positives": [0] * HISTOGRAM_BINS,
            "candidates": [0] * HISTOGRAM_BINS,
        }
    )
    margins: dict[str, list[int]] = field(
        default_factory=lambda: {"candidates": [0] * HISTOGRAM_BINS}
    )

    def add(self, choice: SelectionOutcome, views: list[View]) -> None:
        """Counts one row. Margins are counted for the first k candidates, which the selection uses."""
        query, scale = choice.resolved.case.query, choice.resolved.case.scales[0]
        self.reasons[choice.reason] += 1
        self.views.update(views)
        self.candidates += len(query.candidates)
        self.dropped += choice.dropped
        self.without_verdict += sum(
            judged.log_odds is None for judged in (*query.positives, *query.candidates)
        )

        # The bins of both charts.
        for name in ("positives", "candidates"):
            for judged in getattr(query, name):
                if judged.log_odds is not None:
                    number = bin_of(scale.score(judged), 0.0, 1.0, HISTOGRAM_BINS)
                    self.scores[name][number] += 1
        for candidate in choice.resolved.candidates:
            if (
                candidate.score is not None
                and candidate.positive is not None
                and not candidate.overruled
            ):
                number = bin_of(candidate.positive - candidate.score, -1.0, 1.0, HISTOGRAM_BINS)
                self.margins["candidates"][number] += 1


def inspect(settings: InspectSettings) -> str:
    """Writes the page, and returns a sentence about its contents.

    Raises:
        DataError: The folders do not belong together, scores are missing, or `out` exists and is no page of
            `mine inspect`.
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
        f"{settings.out}: {rows:,} of {read:,} rows, {shown.pictures:,} images ({shown.left_out:,} left out, "
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
    rows = shown.values["rows"]
    in_view = Counter(VIEWS[index] for row in rows for index in row["views"])
    scripts = [
        (HERE / name).read_text(encoding="utf-8")
        for name in ("overrides.js", "labels.js", "inspect.js")
    ]
    return page(
        HERE / "inspect.html.jinja",
        settings=settings,
        corpus=corpus.manifest,
        folders=list(zip(settings.scores, sources.manifests, strict=True)),
        rule=rule_of(settings),
        counts=counts,
        views=[(view, counts.views[view], in_view[view]) for view in VIEWS],
        files=[
            (file, sample.read[file], sample.shown[file]) for file in FILES if sample.read[file]
        ],
        read=sample.read.total(),
        rows=sample.shown.total(),
        shown=shown,
        subsets=sorted({row["subset"] for row in rows}),
        score_chart=_scores(settings, counts),
        margin_chart=_margins(settings, counts),
        data=data("rows", shown.values),
        script=Script("".join(scripts)),
    )


def _scores(settings: InspectSettings, counts: PageCounts) -> str:
    mark = (settings.suspect_below, f"{settings.suspect_below:g}: a lower positive is suspect")
    return bars(counts.scores, low=0.0, high=1.0, x_label="judge score", marks=[mark])


def _margins(settings: InspectSettings, counts: PageCounts) -> str:
    betas = rule_of(settings).betas
    marks = [(0.0, "as good as the positive")]
    if betas:
        first, *others = betas
        marks = [(first, f"α, at β = {first:g}: candidates left of α are dropped")]
        marks += [(beta, f"β = {beta:g}, for rows with too few survivors") for beta in others]
    label = "score of the positive minus score of the candidate"
    return bars(counts.margins, low=-1.0, high=1.0, x_label=label, marks=marks)
