"""All benchmarks, and the averages that reach over several of them."""

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
"""Source of the last three: UniME-V2, arXiv 2510.13515, tables 3 to 6."""


def choose_sets(root: Path, only: Sequence[str], *, partial: bool = False) -> tuple[list[BenchmarkSet], dict[str, str]]:
    """The named sets, or all that are found; and of others why they cannot be measured.

    Args:
        root: The folder of the data.
        only: Names of benchmarks or sets; all that are found if empty.
        partial: Whether named sets that are not there are left out.

    Returns:
        The sets, and for each that is there in part, or was named and is not there, what was looked for.

    Raises:
        SettingsError: A name is none.
        DataError: A named set is not there, or none is; what was looked for is said.
    """
    known = {name for one in SETS for name in (one.name, one.name.partition("/")[0])}
    if unknown := [name for name in only if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        names = f"did you mean {near[0]}?" if near else f"there are {sorted({one.partition('/')[0] for one in known})}"
        raise SettingsError(f"only: {unknown[0]}: no such benchmark or set; {names} `--list` names every set")
    named = [one for one in SETS if not only or {one.name, one.name.partition("/")[0]} & set(only)]
    lacking = {one.name: one.found(root)[1] for one in named}
    found = [one for one in named if not lacking[one.name]]
    if not found or (only and len(found) < len(named) and not partial):
        first = next(name for name in lacking if lacking[name])
        raise DataError(
            f"{root}: {len(named) - len(found)} of {len(named)} sets are not there, first {first}: looked for "
            f"{'; '.join(lacking[first])}; `--list` says it of all"
        )
    half = [one.name for one in named if lacking[one.name] and (only or one.has_rows(root))]
    return found, {name: f"{name}: is not there: looked for {'; '.join(lacking[name])}" for name in half}


def listing(root: Path) -> list[str]:
    """A line for each set: whether it is there, with the queries that were published, or what was looked for."""
    rows = []
    for one in SETS:
        _, lacking = one.found(root)
        found = ["found", f"{sum(one.queries.values()):>6,} queries are expected"]
        rows.append([one.name, *(["missing", "; ".join(lacking)] if lacking else found)])
    return aligned(rows, left=3)
