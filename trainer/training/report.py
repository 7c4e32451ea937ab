"""The page report.html: the metrics of a training, step by step, and its settings. Several runs share one chart.

The page opens from a disk, without a server or a network. A report can also show a run that is not finished.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from unijudge.errors import DataError
from unijudge.pages.charts import SERIES, Points, curves
from unijudge.pages.pages import page
from unijudge.provenance import Beginning, Versions, without_passwords
from unijudge.settings import flattened
from unijudge.storage.files import publish_text, read_json, read_text
from unijudge.storage.outputs import check_file
from unijudge.storage.stores import exists

MARK = b'<meta name="generator" content="unijudge train report">'
"""The bytes by which a report recognises a file as another report, which it may overwrite."""


@dataclass(frozen=True)
class Figure:
    """One chart of a run."""

    y_label: str
    metrics: Sequence[str]
    said: str
    noisy: bool = True
    by_size: bool = False
    """Whether runs of very different values get charts of their own, so that no curve is flat beside another."""


LOSS = Figure(
    "loss",
    ["loss"],
    "Mean over the rows of an update, in nats. The unit of margin_mse is a squared logit.",
)
"""The chart of the loss. If a loss has several terms, the chart shows each term as well."""
OTHERS = (
    Figure(
        "nats",
        ["teacher_entropy", "student_entropy"],
        "Mean entropies of Q and P over the rows. Q is the softmax of a row's judge scores, P the softmax of the "
        "student's similarities, each divided by its temperature. An entropy near ln(1 + negatives) means a uniform "
        "distribution without information. An entropy near 0 means a one-hot distribution.",
    ),
    Figure(
        "share of rows",
        ["teacher_one_hot"],
        "Share of rows where Q gives one candidate more than 0.99. In these rows soft labels teach the same as hard "
        "labels.",
    ),
    Figure(
        "gradient norm",
        ["gradient_norm"],
        "Norm of the gradient before it is scaled down to max_grad_norm.",
    ),
    Figure("learning rate", ["learning_rate"], "", noisy=False, by_size=True),
)
SAME_SIZE = 10
"""The largest ratio of two curves in a chart of a figure with `by_size`."""
SUMMARY = ("loss", "teacher_entropy", "student_entropy", "teacher_one_hot", "gradient_norm")
RUN_OWN_FACTS = {"made.created", "made.command", "settings.out"}
"""The facts that differ between any two runs and therefore explain no difference of results."""
INCOMPARABLE = (
    "The runs have different losses (loss.name), so the heights of their curves are not comparable."
)
_LINE = TypeAdapter(dict[str, float])
NO_TERMS = {"step", *(metric for figure in (LOSS, *OTHERS) for metric in figure.metrics)}


@dataclass(frozen=True)
class Reading:
    """The data of a run's folder."""

    name: str
    begun: Beginning
    environment: Mapping[str, str]
    steps: Sequence[Mapping[str, float]]
    """The metrics of each step, as metrics.jsonl lists them."""
    finished: bool

    @classmethod
    def of(cls, folder: Path) -> "Reading":
        """Reads the folder of a run, finished or not.

        Raises:
            DataError: The folder holds no run, or the run has not logged a step yet.
        """
        begun = read_json(folder / "settings.json", Beginning)
        environment = read_json(folder / "environment.json", Versions).root
        steps = read_steps(folder)
        return cls(folder.resolve().name, begun, environment, steps, exists(folder / "adapter"))

    def points(self, metric: str) -> Points:
        """Returns (step, value) for each step that logged the metric."""
        return [(line["step"], line[metric]) for line in self.steps if metric in line]

    def late(self, metric: str) -> float | None:
        """Returns the mean of a metric over the last tenth of its logged steps, or None if it was never logged."""
        values = [value for _, value in self.points(metric)]
        if not values:
            return None
        tenth = max(1, len(values) // 10)
        return sum(values[-tenth:]) / tenth

    @property
    def loss(self) -> str | None:
        """The name of the run's loss, or None for a reranker, whose loss has no name."""
        return self.begun.settings.get("loss", {}).get("name")

    @property
    def terms(self) -> list[str]:
        """The names of the loss's terms. Empty for a loss of one term, since this term equals the loss."""
        names = list(
            dict.fromkeys(name for line in self.steps for name in line if name not in NO_TERMS)
        )
        return names if len(names) > 1 else []


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Writes the page.

    Args:
        folders: The folders of the runs, at least one and at most `SERIES`.
        out: The file of the page.

    Raises:
        DataError: A folder holds no run, or a run has no step yet; there are too many runs to distinguish their curves;
            or the file `out` exists and is not a report.
    """
    check_file(out, lambda data: MARK in data, "page of `train report`")
    if len(folders) > SERIES:
        raise DataError(
            f"{len(folders)} runs: a chart has only {SERIES} distinct colors. Give at most {SERIES} runs"
        )
    runs = [Reading.of(folder) for folder in folders]
    names = _apart(runs, folders)
    facts = [_facts(run) for run in runs]
    differing, common = _compared(facts)
    html = page(
        Path(__file__).parent / "report.html.jinja",
        runs=list(zip(names, runs, strict=True)),
        metrics=[metric for metric in SUMMARY if _is_logged(metric, runs)],
        figures=list(_figures(dict(zip(names, runs, strict=True)))),
        differing=differing,
        common=common,
    )
    publish_text(out, html)


def read_steps(run: Path) -> list[dict[str, float]]:
    """Returns the metrics of each step of a run. An incomplete last line, left by a crash or a write, is ignored.

    Raises:
        DataError: A line holds no metrics, or there is no line yet.
    """
    path, steps = run / "metrics.jsonl", []
    for number, line in enumerate(
        read_text(path).split("\n")[:-1] if exists(path) else [], start=1
    ):
        try:
            steps.append(_LINE.validate_json(line))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise DataError(
                f"{path}:{number}: not the metrics of a step ({reason}). Train again"
            ) from error
    if not steps:
        raise DataError(
            f"{run}: no step is logged yet. Run the command again once the training runs"
        )
    return steps


def _figures(runs: Mapping[str, Reading]) -> Iterator[tuple[str, str]]:
    """Yields each chart with its caption. A chart of one run has a curve for each metric, otherwise one for each run.

    If a figure becomes several charts, only the first chart has the caption.
    """
    terms = dict.fromkeys(term for run in runs.values() for term in run.terms)
    losses = {run.loss for run in runs.values()}
    said = LOSS.said if len(losses) == 1 else f"{LOSS.said} {INCOMPARABLE}"
    loss = replace(LOSS, metrics=[*LOSS.metrics, *terms], said=said)
    for figure in (loss, *OTHERS):
        caption = figure.said
        for label, series in _charts(figure, runs).items():
            if series:
                yield caption, curves(series, x_label="step", y_label=label, smooth=figure.noisy)
            caption = ""


def _charts(figure: Figure, runs: Mapping[str, Reading]) -> dict[str, dict[str, Points]]:
    """Returns the curves of a figure's charts: label of the y axis → name of the curve → points."""
    logged = [metric for metric in figure.metrics if _is_logged(metric, runs.values())]
    if len(runs) == 1:
        (run,) = runs.values()
        return {figure.y_label: {_spoken(metric): run.points(metric) for metric in logged}}

    charts = {}
    for metric in logged:
        curves_of_runs = {name: run.points(metric) for name, run in runs.items()}
        groups = _of_one_size(curves_of_runs) if figure.by_size else [curves_of_runs]
        for group in groups:
            label = _spoken(metric)
            if len(groups) > 1:
                label += f" up to {max(map(_peak, group.values())):.2g}"
            charts[label] = group
    return charts


def _of_one_size(series: Mapping[str, Points]) -> list[dict[str, Points]]:
    """Groups curves by their largest values, such that the largest value of a group is at most ten times another.

    Example:
        >>> _of_one_size({"a": [(1, 1e-3)], "b": [(1, 1e-5)], "c": [(1, 2e-3)]})
        [{'b': [(1, 1e-05)]}, {'a': [(1, 0.001)], 'c': [(1, 0.002)]}]
    """
    groups: list[dict[str, Points]] = []
    smallest = 0.0
    for name in sorted(series, key=lambda name: _peak(series[name])):
        peak = _peak(series[name])
        if not groups or peak > SAME_SIZE * smallest:
            groups.append({})
            smallest = peak
        groups[-1][name] = series[name]
    return groups


def _peak(points: Points) -> float:
    return max((value for _, value in points), default=0.0)


def _spoken(metric: str) -> str:
    return metric.replace("_", " ")


def _apart(runs: Sequence[Reading], folders: Sequence[Path]) -> list[str]:
    """Returns the names of the folders of the runs, or their full paths if two folders have the same name."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(folder) for folder in folders]


def _is_logged(metric: str, runs: Iterable[Reading]) -> bool:
    return any(run.points(metric) for run in runs)


def _facts(run: Reading) -> dict[str, str]:
    """Returns the settings, inputs, origin and environment of a run as a flat dictionary."""
    made = {} if run.begun.made is None else run.begun.made.model_dump(exclude_none=True)
    groups = {
        "settings": run.begun.settings,
        "inputs": run.begun.inputs,
        "made": made,
        "environment": run.environment,
    }
    return {name: without_passwords(_text(value)) for name, value in flattened(groups)}


def _text(value: object) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compared(facts: Sequence[Mapping[str, str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Returns the facts that differ between the runs, except `RUN_OWN_FACTS`, and the facts that all runs share."""
    different: dict[str, list[str]] = {}
    common: dict[str, str] = {}
    for name in dict.fromkeys(name for run in facts for name in run):
        values = [run.get(name, "–") for run in facts]
        if len(set(values)) == 1:
            common[name] = values[0]
        elif name not in RUN_OWN_FACTS:
            different[name] = values
    return different, common
