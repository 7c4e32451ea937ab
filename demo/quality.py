"""How good is the judge? Fresh pairs of the demo's world with known truth, scored by a running service.

    python -m demo.quality URL OUT.json

The scenes are new, the digits are of the half that nothing was taught with, and these pairs chose nothing.
"""

import asyncio
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from demo.lessons import Album, Lessons, Pair
from demo.tiny_model import make_tokenizer
from demo.world import KINDS, SMALL
from unijudge.client import JudgeClient
from unijudge.corpus import Content
from unijudge.files import publish_text
from unijudge.metrics import roc_auc
from unijudge.verdicts import Verdict

PAIRS = 2400
SEED = 424242
IN_FLIGHT = 16


async def main(url: str, out: Path) -> None:
    """Scores the pairs, prints the table, and writes it."""
    album = Album.of(SMALL, scenes=1200, seed=SEED, held_out=True)
    pairs = Lessons(album, make_tokenizer(), SEED).pairs(PAIRS)
    pictures = [_png(picture) for picture in album.pictures]
    slots = asyncio.Semaphore(IN_FLIGHT)

    def with_picture(content: Content) -> Content:
        return Content(content.text, pictures[int(content.image)] if content.image else None)

    async def score(judge: JudgeClient, pair: Pair) -> float:
        async with slots:
            (answer,) = await judge.judge(with_picture(pair.query), [with_picture(pair.candidate)])
        if not isinstance(answer, Verdict):
            sys.exit(f"a fresh pair was not judged: {answer}")
        return answer.score

    async with JudgeClient(url) as judge:
        scores = await asyncio.gather(*(score(judge, pair) for pair in pairs))
    report = quality(pairs, np.array(scores))
    publish_text(out, json.dumps(report, indent=2) + "\n")
    print(f"\n{'the judge on ' + str(PAIRS) + ' fresh pairs':<34}{'ROC-AUC':>8}{'pairs':>8}")
    for name, (area, count) in report.items():
        print(f"{name:<34}{area:>8.3f}{count:>8}")


def quality(pairs: Sequence[Pair], scores: npt.NDArray[np.float64]) -> dict[str, tuple[float, int]]:
    """ROC-AUC and number of pairs: over all, over scenes' hard negatives, and for each kind of negative."""
    match = np.array([pair.is_match for pair in pairs])
    kinds = np.array([pair.kind for pair in pairs])
    scene = np.isin(kinds, ["positive", "random", *KINDS])

    def of(chosen: npt.NDArray[np.bool_]) -> tuple[float, int]:
        return roc_auc(scores[chosen], match[chosen]), int(chosen.sum())

    report = {"all": of(np.ones_like(match)), "hard": of(scene & (kinds != "random"))}
    for kind in ("random", *KINDS):
        report[kind] = of(np.isin(kinds, ["positive", kind]))
    for kind in ("digit_name", "digit_image"):
        report[kind] = of(kinds == kind)
    return report


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
