"""How good is the judge? Fresh pairs of the demo's world with known truth, scored by a running service.

    python -m demo.quality URL OUT.json PAIRS

The pictures are new, the digits are of the half that nothing was taught with, and these pairs chose nothing. The world
is small: most of its scenes of two things were seen, in other pictures, when the judge was taught.
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
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.judging.verdicts import Verdict
from unijudge.metrics import roc_auc
from unijudge.storage.files import publish_text

SEED = 424242
HARD = tuple(kind for kind in KINDS if kind.startswith(("replace", "swap")))
IN_FLIGHT = 48


async def main(url: str, out: Path, count: int) -> None:
    """Scores the pairs, prints the table, and writes it."""
    album = Album.of(SMALL, scenes=count // 2, seed=SEED, held_out=True)
    pairs = Lessons(album, make_tokenizer(), SEED).pairs(count)
    pictures = [png(picture) for picture in album.pictures]
    slots = asyncio.Semaphore(IN_FLIGHT)

    def with_picture(content: Content) -> Content:
        return Content(content.text, pictures[int(content.image)] if content.image else None)

    async def score(judge: JudgeClient, pair: Pair) -> float:
        async with slots:
            (answer,) = await judge.judge(with_picture(pair.query), [with_picture(pair.candidate)])
        if not isinstance(answer, Verdict):
            sys.exit(f"a fresh pair was not judged: {answer}")
        return answer.score

    async with JudgeClient(url, max_in_flight=IN_FLIGHT) as judge:
        scores = await asyncio.gather(*(score(judge, pair) for pair in pairs))
    areas = quality(pairs, np.array(scores))
    rows = [{"kind": p.kind, "match": p.is_match, "score": s} for p, s in zip(pairs, scores, strict=True)]
    publish_text(out, json.dumps({"identity": judge.identity.model_dump(), "roc_auc": areas, "pairs": rows}) + "\n")
    print(f"\n{'the judge on ' + str(count) + ' fresh pairs':<34}{'ROC-AUC':>8}")
    for name, area in areas.items():
        print(f"{name:<34}{area:>8.3f}")


def quality(pairs: Sequence[Pair], scores: npt.NDArray[np.float64]) -> dict[str, float]:
    """ROC-AUC over all pairs; over scenes' replaced and swapped negatives alone (`hard`); for each kind of negative."""
    match = np.array([pair.is_match for pair in pairs])
    kinds = np.array([pair.kind for pair in pairs])

    def against(*negatives: str) -> float:
        chosen = np.isin(kinds, ["positive", *negatives])
        return roc_auc(scores[chosen], match[chosen])

    areas = {"all": roc_auc(scores, match), "hard": against(*HARD)}
    areas |= {kind: against(kind) for kind in ("random", *KINDS) if kind in kinds}
    for kind in ("digit_name", "digit_image"):
        if len(set(match[kinds == kind])) == 2:
            areas[kind] = roc_auc(scores[kinds == kind], match[kinds == kind])
    return areas


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
