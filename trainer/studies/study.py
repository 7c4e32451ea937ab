"""One study: a question, the steps that answer it, and what is measured. It is read from one TOML file.

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

A word in braces is a placeholder. It stands for an entry of `names`, the chosen value of an axis, the `seed`, the
output of another step, `out` (the output of this step), or `service` (the URL of this step's judge service). Commands
run where `unijudge study run` was typed.
"""

import re
import string
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from unijudge.settings import Settings, load_settings

SEED, OUT, SERVICE, PORT, RESULTS = "seed", "out", "service", "port", "results"
PLACEHOLDERS = frozenset({SEED, OUT, SERVICE, PORT, RESULTS})
"""Placeholders that every study has."""
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}")
"""A name that may be a part of a file's name."""


def _label(name: str) -> str:
    if not LABEL.fullmatch(name):
        raise ValueError(
            f"{name[:60]!r} cannot be a part of a file's name. Use letters, digits and . _ + - only, 60 at most"
        )
    return name


CellLabel = Annotated[str, AfterValidator(_label)]


class Step(Settings):
    """One command. It runs once for each value of each axis that it depends on, and for each seed if it uses one."""

    command: str = Field(min_length=1)
    """The command line. It must write to {out}."""
    service: str | None = None
    """A command that serves a judge while this step runs, such as `unijudge judge serve port={port}`."""
    cpus: float = Field(1, gt=0)
    """CPUs that Ray reserves for it."""
    gpus: float = Field(0, ge=0)
    """GPUs that Ray reserves for it."""
    seconds: float | None = Field(None, gt=0)
    """How long it takes, for the estimate of `--dry-run`. Measured times of finished steps are used before it."""


class Measure(Settings):
    """One number for each run of a step."""

    steps: tuple[str, ...] = Field(min_length=1)
    """Steps whose output is measured."""
    file: str = "rankings.parquet"
    """A file in the output. Of rankings.parquet, precision@1 is measured query by query: its mean over the subsets."""
    key: str | None = None
    """Of a .json file: the place of the number, as in subsets.all.ndcg@10. Of a .jsonl file: the name in each line."""
    of: Literal["last", "first", "largest", "deviation", "steps_to_95"] = "last"
    """Of a .jsonl file: the mean of the last or first tenth of the lines, the largest value, the deviation, or the
    number of lines after which 95 % of the way from first to last is gone."""

    @model_validator(mode="after")
    def _has_key(self) -> "Measure":
        if not self.file.endswith(".parquet") and self.key is None:
            raise ValueError(f"key: required for {self.file}. Name the number in the file")
        return self


class Comparison(Settings):
    """Two values of one axis, with everything else equal."""

    axis: str
    left: str
    """The value that is compared with."""
    right: str
    """The value that the sentence is about."""
    where: dict[str, str] = Field(default_factory=dict)
    """Values of other axes. Without it the two are compared at every combination of the other axes."""
    claim: str
    """The subject of a sentence, such as `The judge's filter, against random negatives,`."""
    paper: Literal["helps", "harms"] | None = None
    """What the paper says of it."""


class Study(Settings):
    """What a study's file says."""

    question: str = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    names: dict[str, str] = Field(default_factory=dict)
    """Texts for placeholders that are the same in all runs."""
    axes: dict[str, dict[CellLabel, str] | tuple[int | float | str, ...]] = Field(default_factory=dict)
    """Name → the values: a list, or a table of label → text. Steps are repeated for each value that they depend on."""
    leave_out: tuple[dict[str, str], ...] = ()
    """Combinations of axes' values that are not run."""
    steps: dict[CellLabel, Step] = Field(min_length=1)
    measures: dict[str, Measure] = Field(default_factory=dict)
    comparisons: dict[str, Comparison] = Field(default_factory=dict)
    detect: float | None = Field(None, gt=0, le=1)
    """A difference of precision@1 to look for. The report says how many queries it needs, if there are too few."""

    @model_validator(mode="after")
    def _is_sound(self) -> "Study":
        _check_names(self)
        for axis in self.axes:
            for label in self.values(axis):
                _label(label)
        for name, comparison in self.comparisons.items():
            _check_values(self, f"comparisons.{name}", comparison.where | {comparison.axis: comparison.left})
            _check_values(self, f"comparisons.{name}", {comparison.axis: comparison.right})
        for combination in self.leave_out:
            _check_values(self, "leave_out", combination)
        for name, measure in self.measures.items():
            for step in measure.steps:
                if step not in self.steps:
                    raise ValueError(
                        f"measures.{name}.steps: there is no step {step!r}. Steps: {', '.join(self.steps)}"
                    )
        return self

    def values(self, axis: str) -> dict[str, str]:
        """Label → text of one axis, in order.

        Example:
            >>> Study(question="?", steps={"a": {"command": "b"}}, axes={"k": (4, 8)}).values("k")
            {'4': '4', '8': '8'}
        """
        values = self.axes[axis]
        if isinstance(values, dict):
            return values
        return {str(value): str(value) for value in values}


def read_study(path: Path, overrides: list[str]) -> Study:
    """Reads a study's file.

    Raises:
        SettingsError: It cannot be read, or says something that cannot be run. The place is named.
    """
    return load_settings(Study, path, overrides)


def placeholders(command: str) -> list[str]:
    """The names in braces, in order; `{{` is a brace.

    Raises:
        ValueError: A brace is not closed, or nothing stands in it.

    Example:
        >>> placeholders("train {rows} seed={seed}")
        ['rows', 'seed']
    """
    found = []
    for _, name, form, conversion in string.Formatter().parse(command):
        if name is None:
            continue
        if not name or form or conversion:
            raise ValueError(f"{{{name}}} is not a placeholder. Write a name in braces; {{{{ is a brace")
        found.append(name)
    return found


def _check_names(study: Study) -> None:
    """One name means one thing."""
    seen = dict.fromkeys(PLACEHOLDERS, "a placeholder of every study")
    for kind in ("names", "axes", "steps"):
        for name in getattr(study, kind):
            if name in seen:
                raise ValueError(f"{kind}.{name}: the name is taken by {seen[name]}. Choose another one")
            seen[name] = f"{kind}.{name}"


def _check_values(study: Study, place: str, values: dict[str, str]) -> None:
    for axis, label in values.items():
        if axis not in study.axes:
            raise ValueError(f"{place}: there is no axis {axis!r}. Axes: {', '.join(study.axes) or 'none'}")
        if label not in study.values(axis):
            known = ", ".join(study.values(axis))
            raise ValueError(f"{place}: the axis {axis} has no value {label!r}. Values: {known}")
