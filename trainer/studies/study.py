"""A study: a question, the steps that answer the question, and the measures. A TOML file defines a study.

    question = "Do harder negatives make a better embedder?"
    seeds = [0, 1, 2]

    [names]
    base = "demo/models/base"

    [axes.negatives]
    random = "preset=random"
    hard = "preset=topk"

    [steps.rows]
    command = "unijudge mine select out={out} {negatives} seed={seed}"

    [steps.student]
    command = "unijudge train embedder triples={rows} model.name={base} seed={seed} out={out}"

A word in braces is a placeholder for one of these values: an entry of `names`, the chosen value of an axis, the `seed`,
the output of another step, `out` (the output of this step), or `service` (the URL of this step's judge service).
Commands run in the current folder of `unijudge study run`.
"""

import re
import string
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from unijudge.settings import Settings, load_settings

SEED, OUT, SERVICE, PORT, RESULTS = "seed", "out", "service", "port", "results"
PLACEHOLDERS = frozenset({SEED, OUT, SERVICE, PORT, RESULTS})
"""The placeholders that every study has."""
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}")
"""The names that may be part of a file name."""


def _label(name: str) -> str:
    if not LABEL.fullmatch(name):
        raise ValueError(
            f"{name[:60]!r} cannot be part of a file name. Use at most 60 characters: letters, digits and . _ + -"
        )
    return name


CellLabel = Annotated[str, AfterValidator(_label)]


class Step(Settings):
    """A step of a study: a command that runs once for each value of each axis and for each seed on which it depends."""

    command: str = Field(min_length=1)
    """The command line. The command must write to {out}."""
    service: str | None = None
    """A command that serves a judge while this step runs, such as `unijudge judge serve port={port}`."""
    cpus: float = Field(1, gt=0)
    """Number of CPUs that Ray reserves for the step."""
    gpus: float = Field(0, ge=0)
    """Number of GPUs that Ray reserves for the step."""
    seconds: float | None = Field(None, gt=0)
    """Expected seconds of the step, for the estimate of `--dry-run`. Measured times of finished runs replace this
    value."""


class Measure(Settings):
    """A measure of a study: one number for each run of a step."""

    steps: tuple[str, ...] = Field(min_length=1)
    """The steps whose output is measured."""
    file: str = "rankings.parquet"
    """The measured file in the output. For rankings.parquet, the measure is precision@1 of each query, and its mean
    over the subsets."""
    key: str | None = None
    """The key of the number. In a .json file, a dotted key such as subsets.all.ndcg@10 or figures.0.roc_auc. In a
    .jsonl file, the name in each line."""
    of: Literal["last", "first", "largest", "deviation", "steps_to_95"] = "last"
    """The statistic over the lines of a .jsonl file. `last` and `first`: the mean of the last or first tenth of the
    lines. `largest`: the largest value. `deviation`: the standard deviation. `steps_to_95`: the number of lines until
    95 % of the change from first to last has happened."""

    @model_validator(mode="after")
    def _has_key(self) -> "Measure":
        if not self.file.endswith(".parquet") and self.key is None:
            raise ValueError(f"key: required for {self.file}. Name the number in the file")
        return self


class Comparison(Settings):
    """A comparison of two values of one axis. All other axes are equal."""

    axis: str
    left: str
    """The baseline value of the axis."""
    right: str
    """The value of the axis that the claim is about."""
    where: dict[str, str] = Field(default_factory=dict)
    """Fixed values of other axes. Without `where`, the comparison is made at every combination of the other axes."""
    claim: str
    """The subject of a sentence, such as `The judge's filter, against random negatives,`."""
    paper: Literal["helps", "harms"] | None = None
    """The paper's claim about the right value."""


class Study(Settings):
    """The content of a study's file."""

    question: str = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    names: dict[str, str] = Field(default_factory=dict)
    """Placeholder → text, the same in all runs."""
    axes: dict[str, dict[CellLabel, str] | tuple[int | float | str, ...]] = Field(
        default_factory=dict
    )
    """Axis → values, a list or a table of label → text. A step is repeated for each value on which it depends."""
    leave_out: tuple[dict[str, str], ...] = ()
    """Combinations of values that do not run."""
    steps: dict[CellLabel, Step] = Field(min_length=1)
    measures: dict[str, Measure] = Field(default_factory=dict)
    comparisons: dict[str, Comparison] = Field(default_factory=dict)
    answer: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Comparison → values of other axes. The findings of these comparisons, for the first measure, answer the
    question."""
    detect: float | None = Field(None, gt=0, le=1)
    """The difference of precision@1 that the study should detect. If there are too few queries, the report gives the
    needed number."""

    @model_validator(mode="after")
    def _is_sound(self) -> "Study":
        _check_names(self)
        for axis in self.axes:
            for label in self.values(axis):
                _label(label)
        for name, comparison in self.comparisons.items():
            _check_values(
                self, f"comparisons.{name}", comparison.where | {comparison.axis: comparison.left}
            )
            _check_values(self, f"comparisons.{name}", {comparison.axis: comparison.right})
        for name, where in self.answer.items():
            if name not in self.comparisons:
                known = (
                    ", ".join(self.comparisons) or "no comparison, since the study declares none"
                )
                raise ValueError(f"answer: there is no comparison {name!r}. Choose from {known}")
            _check_values(self, f"answer.{name}", where)
        for combination in self.leave_out:
            _check_values(self, "leave_out", combination)
        for name, measure in self.measures.items():
            for step in measure.steps:
                if step not in self.steps:
                    raise ValueError(
                        f"measures.{name}.steps: there is no step {step!r}. Choose from {', '.join(self.steps)}"
                    )
        return self

    def values(self, axis: str) -> dict[str, str]:
        """Returns label → text of one axis, in order.

        Example:
            >>> Study(question="?", steps={"a": {"command": "b"}}, axes={"k": (4, 8)}).values("k")
            {'4': '4', '8': '8'}
        """
        values = self.axes[axis]
        if isinstance(values, dict):
            return values
        return {str(value): str(value) for value in values}


def read_study(path: Path, overrides: list[str]) -> Study:
    """Reads the file of a study.

    Raises:
        SettingsError: The file cannot be read, or a value is invalid. The message names the key.
    """
    return load_settings(Study, path, overrides)


def placeholders(command: str) -> list[str]:
    """Returns the names in braces, in order. `{{` stands for a literal brace.

    Raises:
        ValueError: A brace is not closed, or the braces hold no name.

    Example:
        >>> placeholders("train {rows} seed={seed}")
        ['rows', 'seed']
    """
    names = []
    for _, name, form, conversion in string.Formatter().parse(command):
        if name is None:
            continue
        if not name or form or conversion:
            raise ValueError(
                f"{{{name}}} is not a placeholder. Write a name in braces, or {{{{ for a literal brace"
            )
        names.append(name)
    return names


def _check_names(study: Study) -> None:
    """Raises an error if two entries of names, axes and steps have the same name."""
    seen = dict.fromkeys(PLACEHOLDERS, "a placeholder of every study")
    for kind in ("names", "axes", "steps"):
        for name in getattr(study, kind):
            if name in seen:
                raise ValueError(
                    f"{kind}.{name}: {seen[name]} already has this name. Choose another name"
                )
            seen[name] = f"{kind}.{name}"


def _check_values(study: Study, key: str, values: dict[str, str]) -> None:
    for axis, label in values.items():
        if axis not in study.axes:
            axes = ", ".join(study.axes) or "no axis, since the study declares none"
            raise ValueError(f"{key}: there is no axis {axis!r}. Choose from {axes}")
        if label not in study.values(axis):
            known = ", ".join(study.values(axis))
            raise ValueError(f"{key}: the axis {axis} has no value {label!r}. Choose from {known}")
