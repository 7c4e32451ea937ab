"""Writes labelled pairs of the demo's world, for `unijudge judge bench`.

    python -m demo.pairs FOLDER COUNT

    FOLDER/pairs.jsonl      each pair with its label, its task, and the kind of a pair that does not match
    FOLDER/images/…

The scenes come from the evaluation part, and the digits from the half that no model was trained on. No choice was made
with these pairs.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from demo.teaching.lessons import Album, Lessons, Pair
from demo.tiny_model import make_tokenizer
from demo.world import KINDS, WORLD
from unijudge.content import Content
from unijudge.formats.labelled_scores import LabelledScore
from unijudge.judging.verdicts import Verdict
from unijudge.metrics import roc_auc
from unijudge.storage.files import publishing_folder

SEED = 424242
SCENES = "Scenes"
HARD = tuple(kind for kind in KINDS if kind.startswith(("replace", "swap")))


def write_pairs(folder: Path, count: int, seed: int = SEED) -> None:
    """Writes new pairs and their images."""
    album = Album.of(WORLD, scenes=count // 2, seed=seed, part="eval")
    pairs = Lessons(album, make_tokenizer(), seed).pairs(count)
    with publishing_folder(folder) as draft:
        (draft / "images").mkdir()
        for place in sorted({int(image) for pair in pairs for image in _images(pair)}):
            album.pictures[place].save(draft / _name(place))
        (draft / "pairs.jsonl").write_text("".join(json.dumps(_row(pair)) + "\n" for pair in pairs))
    print(f"{folder}: {count} pairs")


def areas_of(rows: Iterable[LabelledScore]) -> dict[str, float]:
    """Returns group → ROC-AUC.

    The groups are all pairs (`all`), pairs with replaced or swapped words (`hard`), each kind, and each task.
    The negatives of a kind are compared with the positives of all scenes.

    Raises:
        SystemExit: A pair has no verdict.
    """
    scored = [(row, row.answer) for row in rows]
    failed = [answer for _, answer in scored if not isinstance(answer, Verdict)]
    if failed:
        raise SystemExit(
            f"a pair has no verdict: {failed[0]}. Check the log of the judge, and run the demo again"
        )
    scores = np.array([answer.score for _, answer in scored if isinstance(answer, Verdict)])
    match = np.array([row.match for row, _ in scored])
    subsets = np.array([row.subset for row, _ in scored])
    kinds = np.array([row.kind or "" for row, _ in scored])

    def against(*negatives: str) -> float:
        chosen = (subsets == SCENES) & (match | np.isin(kinds, negatives))
        return roc_auc(scores[chosen], match[chosen])

    areas = {"all": roc_auc(scores, match), "hard": against(*HARD)}
    areas |= {kind: against(kind) for kind in ("random", *KINDS) if kind in kinds}
    for task in sorted(set(subsets) - {SCENES}):
        of_task = subsets == task
        if len(set(match[of_task])) == 2:
            areas[task] = roc_auc(scores[of_task], match[of_task])
    return areas


def _images(pair: Pair) -> list[bytes]:
    return [content.image for content in (pair.query, pair.candidate) if content.image]


def _row(pair: Pair) -> dict[str, Any]:
    is_digit = pair.kind.startswith("digit")
    sides = {"query": pair.query, "candidate": pair.candidate}
    texts = {f"{name}_text": side.text for name, side in sides.items()}
    images = {f"{name}_image": _picture(side) for name, side in sides.items()}
    kind = None if pair.is_match or is_digit else pair.kind
    return {
        **texts,
        **images,
        "label": int(pair.is_match),
        "subset": pair.kind if is_digit else SCENES,
        "kind": kind,
    }


def _picture(side: Content) -> str | None:
    return _name(int(side.image)) if side.image else None


def _name(place: int) -> str:
    return f"images/{place:05d}.png"


if __name__ == "__main__":
    write_pairs(Path(sys.argv[1]), int(sys.argv[2]))
