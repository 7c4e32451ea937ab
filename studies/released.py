"""Measures how the training data that UniME-V2 released were made.

    python -m studies.released FILE OUT [--images ROOT --service URL]

FILE is a released train_data_…_scores.json. OUT/released.json contains these shares of rows or scores:

* `on_grid`: scores whose log-odds times 1.05 are a multiple of 1/8. If the judge's logits were bfloat16 and had a
  repetition penalty of 1.05, the share is 1. For other scores the share is about 4 %.
* `margin_0_1`, `margin_0_01`, `margin_0_001`: rows whose negatives are all below the positive's score by this margin.
* `on_ladder`: rows that fit a margin of 0.1 which is reduced only where no negative would be left. In such a row, the
  first margin of the ladder that any stored negative keeps is kept by all stored negatives.
* `with_duplicates`: rows that store a negative twice, which fills rows with few survivors.
* with a service also `log_odds_correlation` and `same_order`. Both compare the log-odds of the service with the
  released log-odds, over all pairs.
"""

import argparse
import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from miner.importers.building.pair import Pair
from miner.importers.unime import read_unime
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import DataError
from unijudge.foreign.cells import Side
from unijudge.foreign.pictures import Pictures
from unijudge.judging.verdicts import Verdict
from unijudge.storage.files import publishing_folder

PENALTY, STEP = 1.05, 1 / 8
LADDER = (0.1, 0.01, 0.001)
NEAR = 0.02
"""The tolerance, as a share of a step of the grid."""


def is_on_grid(score: float) -> bool:
    """Returns whether the log-odds of a score, times the penalty, are a multiple of a step.

    Example:
        >>> is_on_grid(1 / (1 + math.exp(-3 / 8.4))), is_on_grid(0.6)
        (True, False)
    """
    if not 0 < score < 1:
        return False
    steps = math.log(score / (1 - score)) * PENALTY / STEP
    return abs(steps - round(steps)) < NEAR


def is_on_ladder(positive: float, negatives: Sequence[float]) -> bool:
    """Returns whether all negatives keep the first margin of the ladder that any negative keeps.

    Example:
        >>> is_on_ladder(0.9, [0.1, 0.85]), is_on_ladder(0.05, [0.03, 0.02]), is_on_ladder(0.9, [0.1, 0.7])
        (False, True, True)
    """
    for margin in LADDER:
        below = [score <= positive - margin for score in negatives]
        if any(below):
            return all(below)
    return False


def shares(rows: Sequence[Pair]) -> dict[str, float]:
    """Returns the shares that need no service."""
    scored = [(row.scores[0], row.scores[1:]) for row in rows if row.scores]
    found: dict[str, list[bool]] = {"on_grid": [], "on_ladder": [], "with_duplicates": []}
    for margin in LADDER:
        name = f"margin_{margin:g}".replace(".", "_")
        found[name] = [max(negatives) <= positive - margin for positive, negatives in scored]
    for positive, negatives in scored:
        found["on_grid"] += map(is_on_grid, (positive, *negatives))
        found["on_ladder"].append(is_on_ladder(positive, negatives))
    found["with_duplicates"] = [len(set(row.negatives)) < len(row.negatives) for row in rows]
    return {name: float(np.mean(flags)) for name, flags in found.items()}


async def compared(rows: Sequence[Pair], images: Path, service: str) -> dict[str, float]:
    """Compares the log-odds of a running judge with the released ones."""
    theirs, ours = [], []
    with Pictures(images) as pictures:
        async with JudgeClient(service) as judge:
            for row in rows:
                sides = (row.positive, *row.negatives)
                answers = await judge.judge(
                    _content(row.query, pictures), [_content(one, pictures) for one in sides]
                )
                for answer, score in zip(answers, row.scores or (), strict=True):
                    if isinstance(answer, Verdict) and 0 < score < 1:
                        ours.append(answer.log_odds)
                        theirs.append(math.log(score / (1 - score)))
    if len(ours) < 2:
        raise DataError(
            f"{service}: fewer than two pairs have a verdict. Check the log of the service"
        )
    is_higher = [
        np.sign(np.subtract.outer(np.array(values), np.array(values))) for values in (ours, theirs)
    ]
    differ = is_higher[1] != 0
    return {
        "log_odds_correlation": float(np.corrcoef(ours, theirs)[0, 1]),
        "same_order": float((is_higher[0] == is_higher[1])[differ].mean()),
    }


def _content(side: Side, pictures: Pictures) -> Content:
    if isinstance(side.image, bytes):
        return Content(side.text, side.image)
    return Content(side.text, pictures.read(side.image)[0] if side.image else None)


def main() -> None:
    """Reads the command line and writes the shares."""
    parser = argparse.ArgumentParser(prog="python -m studies.released")
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--service")
    given = parser.parse_args()
    rows = [row for row in read_unime(given.file) if isinstance(row, Pair)]
    if not rows:
        raise SystemExit(
            f"{given.file}: contains no row of UniME-V2. Give a released train_data_…_scores.json"
        )
    found = shares(rows) | {"rows": len(rows)}
    if given.service and given.images:
        found |= asyncio.run(compared(rows, given.images, given.service))
    with publishing_folder(given.out) as draft:
        (draft / "released.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{given.out}: {json.dumps(found)}")


if __name__ == "__main__":
    main()
