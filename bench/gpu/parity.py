"""Step 2: the differences of vLLM, and of both backends in bfloat16, from transformers in float32."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from bench.gpu.options import Options, service_settings
from bench.gpu.step import Case, Figures, Outcome, Step, Table, check_engine, number

REFERENCE = "transformers-float32"
LogOdds = Sequence[Sequence[float | None]]
"""The log-odds of the pairs of each query; None for a pair without a verdict."""


def score(
    options: Options,
    *,
    backend: Literal["vllm", "transformers"],
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    head_dtype: Literal["float32", "model"] = "float32",
) -> Figures:
    """Returns the log-odds of pairs of every kind, with the same pairs as `judge verify`."""
    check_engine(options, backend)
    from judge_service.backends import open_judge
    from judge_service.checks.verify import golden_set
    from unijudge.judging.verdicts import PairError, Verdict

    judge = open_judge(service_settings(options, backend, dtype=dtype, head_dtype=head_dtype))

    log_odds: list[list[float | None]] = []
    errors: list[str] = []

    async def ask() -> None:
        for query, candidates in golden_set(options.scale.parity_queries):
            answers = await judge.judge(query, candidates)
            log_odds.append([one.log_odds if isinstance(one, Verdict) else None for one in answers])
            errors.extend(one.message for one in answers if isinstance(one, PairError))

    asyncio.run(ask())
    return {"log_odds": log_odds, "errors": errors}


def differences(found: LogOdds, reference: LogOdds) -> list[float]:
    """Returns |found − reference| of each pair that has both values, in log-odds.

    Example:
        >>> differences([[1.0, None], [0.5]], [[0.0, 2.0], [0.75]])
        [1.0, 0.25]
    """
    gaps = []
    for ours, theirs in zip(found, reference, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            if one is not None and other is not None:
                gaps.append(abs(one - other))
    return gaps


def ties(found: LogOdds) -> int:
    """Returns the number of pairs whose log-odds are equal to those of an earlier pair of the same query.

    Example:
        >>> ties([[1.0, 1.0, 1.0, 2.0], [1.0, None]])
        2
    """
    count = 0
    for query in found:
        values = [value for value in query if value is not None]
        count += len(values) - len(set(values))
    return count


def tables(outcomes: Mapping[str, Outcome]) -> list[Table]:
    """Returns a table with one row per way, each compared with the reference."""
    reference = outcomes[REFERENCE].figures.get("log_odds")
    rows = []
    for name, case in STEP.cases.items():
        found = outcomes[name].figures.get("log_odds")
        rows.append([case.title, *_row(found, reference)])
    header = [
        "way",
        "pairs",
        "without a verdict",
        "largest difference",
        "mean difference",
        "ties",
        "distinct values",
    ]
    note = (
        "Differences are in log-odds, relative to transformers in float32. Ties are pairs with the same log-odds as "
        "another pair of the same query. Random weights produce logits near 1, where bfloat16 has steps of 0.004 to "
        "0.008. Trained models produce logits of 16 to 32, with steps of 0.125. So only a real checkpoint (`--model`) "
        "shows how many ties a head in bfloat16 causes."
    )
    for name, case in STEP.cases.items():
        if errors := outcomes[name].figures.get("errors"):
            note += f" {case.title}: the error of the first pair without a verdict is: {errors[0]}."
    return [Table(header, rows, note)]


def _row(found: LogOdds | None, reference: LogOdds | None) -> list[str]:
    if found is None:
        return [number(None, "")] * 6
    values = [value for query in found for value in query]
    answered = [value for value in values if value is not None]
    gaps = differences(found, reference) if reference is not None else []
    return [
        str(len(values)),
        str(len(values) - len(answered)),
        number(max(gaps, default=None), ".1e"),
        number(float(np.mean(gaps)) if gaps else None, ".1e"),
        str(ties(found)),
        str(len(set(answered))),
    ]


STEP = Step(
    name="parity",
    title="Parity",
    about="Both backends score the same pairs with the same weights.",
    cases={
        REFERENCE: Case(
            "transformers, float32",
            partial(score, backend="transformers", dtype="float32"),
            ["torch", "transformers"],
        ),
        "transformers-bfloat16": Case(
            "transformers, bfloat16, head in float32",
            partial(score, backend="transformers"),
            ["torch", "transformers"],
        ),
        "vllm-float32": Case(
            "vLLM, float32",
            partial(score, backend="vllm", dtype="float32"),
            ["vllm"],
        ),
        "vllm-float32-head": Case(
            "vLLM, bfloat16, head in float32",
            partial(score, backend="vllm"),
            ["vllm"],
        ),
        "vllm-bfloat16-head": Case(
            "vLLM, bfloat16, head in bfloat16",
            partial(score, backend="vllm", head_dtype="model"),
            ["vllm"],
        ),
    },
    tables=tables,
    models=["judge"],
)
