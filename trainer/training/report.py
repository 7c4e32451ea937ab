"""report.html: what a training did, step by step, and under which settings; of several runs, laid over one another.

It opens from a disk, without a server and without a network. It can be made of a run that is still going on.
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
"""Of a page of ours."""


@dataclass(frozen=True)
class Figure:
    """One chart of a run."""

    y_label: str
    metrics: Sequence[str]
    said: str
    noisy: bool = True


LOSS = Figure("loss", ["loss"], "Mean over the rows of an update, in nats; margin_mse is in squared logits.")
"""And its terms, where there are several."""
OTHERS = (
    Figure(
        "nats",
        ["teacher_entropy", "student_entropy"],
        "Entropies of Q (the judge's scores) and P (the student's similarities), each the softmax of its row by its "
        "temperature; mean over rows. Near ln(1 + negatives) a row says nothing, near 0 it is one-hot.",
    ),
    Figure(
        "share of rows",
        ["teacher_one_hot"],
        "Rows whose Q has more than 0.99 on one candidate: there, soft labels teach what hard ones do.",
    ),
    Figure("gradient norm", ["gradient_norm"], "Before it is scaled down to max_grad_norm."),
    Figure("learning rate", ["learning_rate"], "", noisy=False),
)
SUMMARY = ("loss", "teacher_entropy", "student_entropy", "teacher_one_hot", "gradient_norm")
RUN_OWN_FACTS = {"made.created", "made.command", "settings.out"}
"""What every run has of its own: it explains no difference."""
INCOMPARABLE = "The runs have losses of different kinds (loss.name): their heights are not comparable."
_LINE = TypeAdapter(dict[str, float])
NO_TERMS = {"step", *(metric for figure in (LOSS, *OTHERS) for metric in figure.metrics)}


@dataclass(frozen=True)
class Reading:
    """A run's folder as it was read."""

    name: str
    begun: Beginning
    environment: Mapping[str, str]
    steps: Sequence[Mapping[str, float]]
    """The lines of metrics.jsonl."""
    finished: bool

    @classmethod
    def of(cls, folder: Path) -> "Reading":
        """Reads a run, whole or not.

        Raises:
            DataError: It is no run, or no step of it has been logged.
        """
        begun = read_json(folder / "settings.json", Beginning)
        environment = read_json(folder / "environment.json", Versions).root
        steps = read_steps(folder)
        return cls(folder.resolve().name, begun, environment, steps, exists(folder / "adapter"))

    def points(self, metric: str) -> Points:
        """(step, value) wherever it was logged."""
        return [(line["step"], line[metric]) for line in self.steps if metric in line]

    def late(self, metric: str) -> float | None:
        """Its mean over the last tenth of the steps that were done."""
        values = [value for _, value in self.points(metric)]
        last = values[-max(1, len(values) // 10) :]
        return sum(last) / len(last) if last else None

    @property
    def loss(self) -> str | None:
        """Its kind; a reranker's has no name."""
        return self.begun.settings.get("loss", {}).get("name")

    @property
    def terms(self) -> list[str]:
        """The names of the loss's terms; the only one is the loss."""
        names = list(dict.fromkeys(name for line in self.steps for name in line if name not in NO_TERMS))
        return names if len(names) > 1 else []


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Writes the page.

    Args:
        folders: Of the runs, at least one and at most `SERIES`.
        out: The file.

    Raises:
        DataError: A folder is no run, or has no step yet; there are too many to be told apart; or `out` is something
            else than such a page.
    """
    check_file(out, lambda data: MARK in data, "page of `train report`")
    if len(folders) > SERIES:
        raise DataError(f"{len(folders)} runs in one chart cannot be told apart; give at most {SERIES}")
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
    """The lines of a run's metrics; the last one may be torn by a kill, or being written.

    Raises:
        DataError: A line is none, or there is no line yet.
    """
    path, steps = run / "metrics.jsonl", []
    for number, line in enumerate(read_text(path).split("\n")[:-1] if exists(path) else [], start=1):
        try:
            steps.append(_LINE.validate_json(line))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise DataError(f"{path}:{number}: no metrics of a step ({reason}); train again") from error
    if not steps:
        raise DataError(f"{run}: no step is logged yet; ask again when the training runs")
    return steps


def _figures(runs: Mapping[str, Reading]) -> Iterator[tuple[str, str]]:
    """What is said of a chart, and the chart: of one run a line for each metric, of several one for each run.

    Of the charts of one figure the first says it for all.
    """
    terms = dict.fromkeys(term for run in runs.values() for term in run.terms)
    said = LOSS.said if len({run.loss for run in runs.values()}) == 1 else f"{LOSS.said} {INCOMPARABLE}"
    for figure in (replace(LOSS, metrics=[*LOSS.metrics, *terms], said=said), *OTHERS):
        logged = [metric for metric in figure.metrics if _is_logged(metric, runs.values())]
        shown: dict[str, dict[str, Points]] = {}
        if len(runs) == 1:
            (run,) = runs.values()
            shown[figure.y_label] = {_spoken(metric): run.points(metric) for metric in logged}
        else:
            for metric in logged:
                shown[_spoken(metric)] = {name: run.points(metric) for name, run in runs.items()}
        for place, (label, series) in enumerate(shown.items()):
            if series:
                chart = curves(series, x_label="step", y_label=label, smooth=figure.noisy)
                yield "" if place else figure.said, chart


def _spoken(metric: str) -> str:
    return metric.replace("_", " ")


def _apart(runs: Sequence[Reading], folders: Sequence[Path]) -> list[str]:
    """Names of runs: their folders', with as many parents as it takes to tell them apart."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(folder) for folder in folders]


def _is_logged(metric: str, runs: Iterable[Reading]) -> bool:
    return any(run.points(metric) for run in runs)


def _facts(run: Reading) -> dict[str, str]:
    """All that a run began with, flat."""
    made = {} if run.begun.made is None else run.begun.made.model_dump(exclude_none=True)
    groups = {"settings": run.begun.settings, "inputs": run.begun.inputs, "made": made, "environment": run.environment}
    return {name: without_passwords(_text(value)) for name, value in flattened(groups)}


def _text(value: object) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compared(facts: Sequence[Mapping[str, str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What differs between runs, but for what is each one's own, and what is the same in all."""
    rows: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for run in facts for name in run):
        rows[name] = [run.get(name, "–") for run in facts]
    common = {name: values[0] for name, values in rows.items() if len(set(values)) == 1}
    return {name: values for name, values in rows.items() if name not in common and name not in RUN_OWN_FACTS}, common
