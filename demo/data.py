"""The demo's data: captioned scenes and handwritten digits, four tasks, and all that is true of them.

    python -m demo.data train|eval FOLDER SCENES SEED

Pictures are new for every seed (of so small a world most scenes come up again, drawn otherwise); digits are those that
no model was taught with, some for training, others for evaluation.

    FOLDER/images/0000.png …          56 × 56 pixels
    FOLDER/mmeb/Scenes_t2i, …         rows in the MMEB-train layout, each with one positive, as data sets have it
    FOLDER/truth.jsonl                the same queries as pairs, once for each candidate of the pool that is right

Digits: the test set of "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, in scikit-learn.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from demo.captions import Caption, Scene
from demo.lessons import DIGITS, FIND_CAPTION, FIND_IMAGE, SAME_DIGIT, TARGET, WHICH_DIGIT, Album
from demo.world import SMALL
from unijudge.foreign.cells import Side
from unijudge.storage.files import publishing_folder

DIGIT_ROWS = {"train": range(400), "eval": range(400, 898)}
"""Of the half of the digits that taught no model."""

LEFT_OPEN = 0.3
"""How often a caption leaves a colour open: about five pictures of 500 fit one, and only one of them is labelled."""


@dataclass(frozen=True)
class Row:
    """A query, its labelled positive, and everything in the pool that is right."""

    subset: str
    query: Side
    positive: Side
    right: list[Side]


def make_data(folder: Path, part: str, scenes: int, seed: int) -> None:
    """Writes pictures, training rows and the truth. A fifth as many queries as scenes ask for a digit's name."""
    album = Album.of(SMALL, scenes=scenes, seed=seed + (1_000_000 if part == "eval" else 0), held_out=True)
    wanted = [*range(len(album.scenes)), *(album.digit(place) for place in DIGIT_ROWS[part])]
    dice = random.Random(f"{part} {seed}")
    rows = [*_scenes(album.scenes, dice), *_digits(album, DIGIT_ROWS[part], scenes // 5, dice)]
    lines = [json.dumps(pair) + "\n" for number, row in enumerate(rows) for pair in _pairs(number, row)]
    with publishing_folder(folder) as draft:
        (draft / "images").mkdir()
        for place in wanted:
            album.pictures[place].save(draft / "images" / _name(place))
        for subset in dict.fromkeys(row.subset for row in rows):
            (draft / "mmeb" / subset).mkdir(parents=True)
            table = pa.Table.from_pylist([_mmeb(row) for row in rows if row.subset == subset])
            pq.write_table(table, draft / "mmeb" / subset / "original-00000-of-00001.parquet")
        (draft / "truth.jsonl").write_text("".join(lines))
    print(f"{folder}: {len(wanted)} pictures, {len(rows)} queries, {len(lines)} true pairs")


def _scenes(scenes: list[Scene], dice: random.Random) -> Iterator[Row]:
    """A caption for each scene, long for half of the scenes of more than two things; sought in both directions."""
    captions: list[Caption] = [
        SMALL.long_caption(scene, dice)
        if len(scene) > 2 and dice.random() < 0.5
        else SMALL.caption(scene, dice, drop=LEFT_OPEN)
        for scene in scenes
    ]
    pictures = [Side(TARGET, _name(place)) for place in range(len(scenes))]
    texts = [Side(caption.text, None) for caption in captions]
    for place, caption in enumerate(captions):
        right = [picture for scene, picture in zip(scenes, pictures, strict=True) if caption.holds(scene)]
        yield Row("Scenes_t2i", Side(FIND_IMAGE + caption.text, None), pictures[place], right)
    for place, scene in enumerate(scenes):
        right = [text for other, text in zip(captions, texts, strict=True) if other.holds(scene)]
        yield Row("Scenes_i2t", Side(FIND_CAPTION, _name(place)), texts[place], right)


def _digits(album: Album, rows: range, queries: int, dice: random.Random) -> Iterator[Row]:
    """As many ask for a digit's name, and as many for another picture of it."""
    named, paired, pool = rows[:queries], rows[queries : 2 * queries], rows[2 * queries :]
    if len(pool) < 100:
        raise SystemExit(f"{queries} queries of each kind leave {len(pool)} digits to be found; take fewer scenes")
    for place in named:
        name = Side(DIGITS[album.labels[place]], None)
        yield Row("Digits_cls", Side(WHICH_DIGIT, _name(album.digit(place))), name, [name])
    labelled = [dice.choice(_alike(album, place, pool)) for place in paired]
    within = sorted(set(labelled))  # what MMEB's rows name is the whole pool
    for place, twin in zip(paired, labelled, strict=True):
        right = [Side(TARGET, _name(album.digit(other))) for other in _alike(album, place, within)]
        query = Side(SAME_DIGIT, _name(album.digit(place)))
        yield Row("Digits_i2i", query, Side(TARGET, _name(album.digit(twin))), right)


def _alike(album: Album, place: int, others: range | list[int]) -> list[int]:
    return [other for other in others if album.labels[other] == album.labels[place]]


def _mmeb(row: Row) -> dict[str, str | bytes]:
    def text(side: Side) -> str:
        return ("<|image_1|>\n" if side.image else "") + (side.text or "")

    return {
        "qry": text(row.query),
        "qry_image_path": row.query.image or "",
        "pos_text": text(row.positive),
        "pos_image_path": row.positive.image or "",
    }


def _pairs(number: int, row: Row) -> Iterator[dict[str, str | bytes | None]]:
    for side in row.right:
        yield {
            "subset": row.subset,
            "query_id": f"{row.subset}/{number:04}",
            "query_text": row.query.text,
            "query_image": row.query.image,
            "positive_text": side.text,
            "positive_image": side.image,
        }


def _name(place: int) -> str:
    return f"{place:04d}.png"


if __name__ == "__main__":
    part, folder, *numbers = sys.argv[1:]
    make_data(Path(folder), part, *map(int, numbers))
