"""The parts of a measurement: steps, their cases, which run in separate processes, and the tables of their outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.gpu.options import Options
from judge_service.gpus import has_cuda_vllm

NOT_MEASURED = "not measured"
Figures = dict[str, Any]
"""The measurements of a case, as JSON values."""


class Skipped(Exception):
    """A case cannot run on this machine. The message gives the reason."""


class Wrong(Exception):
    """A case ran and found a fault. The message describes the fault."""

    def __init__(self, message: str, figures: Figures):
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    title: str
    measure: Callable[[Options], Figures]
    """The function that measures the case, in a separate process."""
    packages: Sequence[str] = ()
    """Required packages. The case is skipped if a package is missing."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case."""

    state: Literal["ok", "skipped", "failed"]
    seconds: float | None = None
    """Seconds that the process ran; None if no process was started."""
    cause: str = ""
    """The reason why the case was skipped or failed, in one line."""
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    """Sentences below the table."""


@dataclass(frozen=True)
class Step:
    """A group of cases with common tables."""

    name: str
    """The name of the step for `--steps`."""
    title: str
    about: str
    """Sentences that describe the measurement."""
    cases: Mapping[str, Case]
    tables: Callable[[Mapping[str, Outcome]], list[Table]]
    """Creates tables of the outcomes, which are given by the names of the cases. A failed case may have no figures."""
    models: Sequence[str] = ()
    """Cases of the step `models` that must run before this step."""


def check_engine(options: Options, backend: str) -> None:
    """Checks that a backend can run on the device of the measurement.

    Raises:
        Skipped: The backend is vLLM's CUDA build, and the measurement is a dry run on the CPU.
    """
    if options.dry_run and backend == "vllm" and has_cuda_vllm():
        raise Skipped("the installed vLLM is a CUDA build, and a dry run uses no GPU")


def number(value: float | None, form: str) -> str:
    """Returns a figure as text.

    Example:
        >>> number(0.123, ".0%"), number(None, ".0%")
        ('12%', 'not measured')
    """
    return NOT_MEASURED if value is None else format(value, form)
