"""All benchmarks, and the averages over several benchmarks."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from trainer.benchmarks import karpathy, mmeb, sharegpt4v, sugarcrepe, urban1k
from trainer.benchmarks.spec import Average, BenchmarkSet
from unijudge.errors import DataError, SettingsError
from unijudge.pages.terminal import aligned

SETS = (*mmeb.SETS, *karpathy.SETS, *sharegpt4v.SETS, *urban1k.SETS, *sugarcrepe.SETS)

AVERAGES = (
    *mmeb.AVERAGES,
    *sugarcrepe.AVERAGES,
    Average("R_Short", ("flickr30k_t2i", "flickr30k_i2t", "coco_t2i", "coco_i2t")),
    Average("R_Long", ("sharegpt4v_t2i", "sharegpt4v_i2t", "urban1k_t2i", "urban1k_i2t")),
    Average("R_Compos", ("Replace", "Swap", "Add")),
)
"""All averages. Source of the last three averages: UniME-V2, arXiv 2510.13515, tables 3 to 6."""


def choose_sets(
    root: Path, only: Sequence[str], *, partial: bool = False
) -> tuple[list[BenchmarkSet], dict[str, str]]:
    """Returns the named sets, or all sets whose data exists, and the reasons why other sets cannot be measured.

    Args:
        root: The folder of the data.
        only: The names of benchmarks or sets. Empty: all sets whose data exists.
        partial: Whether named sets without data are left out.

    Returns:
        The sets to measure. And set → missing files, for each set whose data is incomplete and for each named set
        without data.

    Raises:
        SettingsError: A benchmark or set has an unknown name.
        DataError: The data of a named set, or of all sets, is missing. The message gives the missing files.
    """
    _check_names(only)
    named = [one for one in SETS if not only or {one.name, _benchmark_of(one)} & set(only)]
    present: list[BenchmarkSet] = []
    absent: list[BenchmarkSet] = []
    missing_files: dict[str, str] = {}
    for one in named:
        _, lacking = one.found(root)
        if lacking:
            absent.append(one)
            missing_files[one.name] = "no " + "; no ".join(lacking)
        else:
            present.append(one)

    if not present or (only and absent and not partial):
        first = absent[0].name
        raise DataError(
            f"{root}: the data of {len(absent)} of {len(named)} sets is missing, first {first}: "
            f"{missing_files[first]}. `--list` shows the missing files of all sets"
        )

    # A set without any data is not mentioned, unless its name was given.
    reasons: dict[str, str] = {}
    for one in absent:
        if only or one.has_rows(root):
            reasons[one.name] = f"{one.name}: data is missing: {missing_files[one.name]}"
    return present, reasons


def _benchmark_of(one: BenchmarkSet) -> str:
    """Returns the name of a set's benchmark, which is the first part of the set's name."""
    return one.name.partition("/")[0]


def _check_names(names: Sequence[str]) -> None:
    """Checks that every name is the name of a benchmark or of a set.

    Raises:
        SettingsError: A name is unknown.
    """
    benchmarks = {_benchmark_of(one) for one in SETS}
    known = benchmarks | {one.name for one in SETS}
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f"Benchmarks are {', '.join(sorted(benchmarks))}."
    if near:
        hint = f"Did you mean {near[0]}?"
    raise SettingsError(
        f"benchmarks: {unknown[0]}: no such benchmark or set. {hint} `--list` shows every set"
    )


def listing(root: Path) -> list[str]:
    """Returns a line for each set: the published number of queries if its data exists, otherwise the missing files."""
    rows = []
    for one in SETS:
        _, lacking = one.found(root)
        found = ["found", f"{sum(one.queries.values()):>6,} queries are expected"]
        rows.append([one.name, *(["missing", "; ".join(lacking)] if lacking else found)])
    return aligned(rows, left=3)
