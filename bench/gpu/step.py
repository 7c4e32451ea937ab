"""What a step of the measurement is: cases, each measured in a process of its own, and the tables made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.gpu.options import Options
from judge_service.gpus import has_cuda_vllm

NOT_MEASURED = "not measured"
Figures = dict[str, Any]
"""What a case measured, as JSON holds it."""


class Skipped(Exception):
    """A case cannot run on this machine; the message says why."""


class Wrong(Exception):
    """A case ran, and found something wrong; the message says what."""

    def __init__(self, message: str, figures: Figures):
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    title: str
    measure: Callable[[Options], Figures]
    """Runs in a process of its own."""
    packages: Sequence[str] = ()
    """Packages without which the case is skipped."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    state: Literal["ok", "skipped", "failed"]
    seconds: float | None = None
    """How long the process ran; None where no process was started."""
    cause: str = ""
    """Why the case was skipped or failed, in one line."""
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
    """Cases that belong together."""

    name: str
    """For `--steps`."""
    title: str
    about: str
    """What is measured, in sentences."""
    cases: Mapping[str, Case]
    tables: Callable[[Mapping[str, Outcome]], list[Table]]
    """Makes tables of the outcomes, by the names of the cases. A case that was not ok may have no figures."""
    models: Sequence[str] = ()
    """Cases of the step `models` that must run before."""


def check_engine(options: Options, backend: str) -> None:
    """Returns if this backend can run where the measurement runs.

    Raises:
        Skipped: It is vLLM's CUDA build, in a dry run on the CPU.
    """
    if options.dry_run and backend == "vllm" and has_cuda_vllm():
        raise Skipped("vLLM is a CUDA build here, and a dry run uses no GPU")


def number(value: float | None, form: str) -> str:
    """A figure as text.

    Example:
        >>> number(0.123, ".0%"), number(None, ".0%")
        ('12%', 'not measured')
    """
    return NOT_MEASURED if value is None else format(value, form)
