"""Creates the demo's data: captioned scenes and handwritten digits, for four tasks, and the complete ground truth.

    python -m demo.data FOLDER --part train --scenes 4000 --queries 600 --seed 0

The data contain no scene that judge or base model were trained on, and no scene is in both parts. The content of a
scene decides its part (`demo.teaching.lessons.part_of`). The digits are split as well.

    FOLDER/images/0000.png …          56 × 56 pixels
    FOLDER/mmeb/Scenes_t2i, …         rows in the layout of MMEB-train, each with one labelled positive
    FOLDER/items.jsonl                the pool: all images and captions of the scenes, more than the rows name
    FOLDER/truth.jsonl                the same queries as pairs, one for each correct candidate of the pool
    FOLDER/grades.npz                 (captions, scenes): the share of a caption's statements that are true of a scene
    FOLDER/data.json                  the recipe, and the mean number of correct images for a caption

Digits: the test set of "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, in scikit-learn.
"""

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from demo.captions import Caption, Scene
from demo.grades import Table
from demo.teaching.lessons import (
    DIGITS,
    FIND_CAPTION,
    FIND_IMAGE,
    SAME_DIGIT,
    TARGET,
    WHICH_DIGIT,
    Album,
)
from demo.world import WORLD
from unijudge.foreign.cells import Side
from unijudge.storage.files import publishing_folder

DIGIT_ROWS = {"train": range(400), "eval": range(400, 898)}
"""Rows of each part, in the half of the digits that no model was trained on."""
MOST_DIGITS = {"train": 100, "eval": 120}
"""Limit of queries for a digit's name, and of queries for another image of a digit."""
TO_IMAGE, TO_TEXT = "Scenes_t2i", "Scenes_i2t"


@dataclass(frozen=True)
class Recipe:
    """The parameters of a data set."""

    part: Literal["train", "eval"]
    scenes: int
    """Number of images in the pool, and of captions."""
    queries: int
    """Number of scenes that queries search for."""
    seed: int
    left_open: float = 0.5
    """How often a short caption does not mention a colour. With a higher value more images match a caption, but only
    one of these images is labelled."""
    long: float = 0.15
    """Share of captions that describe every thing with its position."""
    to_image: float = 0.5
    """Share of queries that search for an image with a caption. The other queries search for a caption with an image.
    At 0.5, queries search for each scene in both directions."""


@dataclass(frozen=True)
class Row:
    """A query, its labelled positive, and all correct candidates of the pool."""

    subset: str
    query: Side
    positive: Side
    right: list[Side]


@dataclass(frozen=True)
class Pool:
    """The scenes of a data set, each with its image and its caption."""

    scenes: Sequence[Scene]
    captions: Sequence[Caption]

    @property
    def pictures(self) -> list[Side]:
        """The images of the scenes, as candidates."""
        return [Side(TARGET, _name(place)) for place in range(len(self.scenes))]

    @property
    def texts(self) -> list[Side]:
        """The captions of the scenes, as candidates."""
        return [Side(caption.text, None) for caption in self.captions]


def make_data(folder: Path, recipe: Recipe) -> None:
    """Writes images, training rows, the pool and the ground truth.

    Raises:
        SystemExit: There are more queries than scenes.
    """
    if not 0 < recipe.queries <= recipe.scenes:
        raise SystemExit(
            f"--queries {recipe.queries}: not in 1 … {recipe.scenes}, the scenes. Give a smaller number"
        )
    seed = recipe.seed + (1_000_000 if recipe.part == "eval" else 0)
    album = Album.of(WORLD, scenes=recipe.scenes, seed=seed, part=recipe.part)
    dice = random.Random(f"{recipe.part} {recipe.seed}")
    pool = Pool(album.scenes, [_caption(scene, recipe, dice) for scene in album.scenes])
    table = Table(WORLD, pool.scenes)
    shares = np.array([table.shares(caption) for caption in pool.captions])
    digits = list(_digits(album, recipe, dice))
    rows = [*_scenes(pool, shares == 1, recipe), *digits]
    wanted = [*range(len(album.scenes)), *(album.digit(place) for place in DIGIT_ROWS[recipe.part])]
    with publishing_folder(folder) as draft:
        _write(draft, rows, pool)
        (draft / "images").mkdir()
        for place in wanted:
            album.pictures[place].save(draft / "images" / _name(place))
        texts = [caption.text for caption in pool.captions]
        np.savez_compressed(
            draft / "grades.npz",
            percent=np.round(100 * shares).astype(np.uint8),
            texts=np.array(texts),
        )
        right = (
            fmean(len(row.right) for row in rows if row.subset == TO_IMAGE)
            if recipe.to_image
            else 0.0
        )
        made = asdict(recipe) | {
            "rows": len(rows),
            "pictures": len(wanted),
            "right_of_a_caption": right,
        }
        (draft / "data.json").write_text(json.dumps(made, indent=1))
    print(
        f"{folder}: {len(wanted)} images, {len(rows)} queries, {right:.1f} correct images per caption"
    )


def _caption(scene: Scene, recipe: Recipe, dice: random.Random) -> Caption:
    if dice.random() < recipe.long:
        return WORLD.long_caption(scene, dice)
    return WORLD.caption(scene, dice, drop=recipe.left_open)


def _scenes(pool: Pool, holds: npt.NDArray[np.bool_], recipe: Recipe) -> Iterator[Row]:
    """Yields queries for the first scenes of the pool, by caption, by image, or both."""
    pictures, texts = pool.pictures, pool.texts
    to_image = range(round(2 * recipe.to_image * recipe.queries))
    to_text = range(2 * recipe.queries - len(to_image))
    for place in to_image[: recipe.scenes]:
        right = [pictures[scene] for scene in np.flatnonzero(holds[place])]
        yield Row(
            TO_IMAGE, Side(FIND_IMAGE + pool.captions[place].text, None), pictures[place], right
        )
    for place in to_text[: recipe.scenes]:
        right = [texts[caption] for caption in np.flatnonzero(holds[:, place])]
        yield Row(TO_TEXT, Side(FIND_CAPTION, _name(place)), texts[place], right)


def _digits(album: Album, recipe: Recipe, dice: random.Random) -> Iterator[Row]:
    """Yields queries for a digit's name, and as many for another image of a digit: each a fifth of `queries`."""
    rows = DIGIT_ROWS[recipe.part]
    queries = min(max(1, recipe.queries // 5), MOST_DIGITS[recipe.part])
    named, paired, pool = rows[:queries], rows[queries : 2 * queries], rows[2 * queries :]
    for place in named:
        name = Side(DIGITS[album.labels[place]], None)
        yield Row("Digits_cls", Side(WHICH_DIGIT, _name(album.digit(place))), name, [name])
    labelled = [dice.choice(_alike(album, place, pool)) for place in paired]
    within = sorted(set(labelled))  # the pool contains only images that MMEB's rows name
    for place, twin in zip(paired, labelled, strict=True):
        right = [Side(TARGET, _name(album.digit(other))) for other in _alike(album, place, within)]
        query = Side(SAME_DIGIT, _name(album.digit(place)))
        yield Row("Digits_i2i", query, Side(TARGET, _name(album.digit(twin))), right)


def _alike(album: Album, place: int, others: range | list[int]) -> list[int]:
    return [other for other in others if album.labels[other] == album.labels[place]]


def _write(folder: Path, rows: Sequence[Row], pool: Pool) -> None:
    """Writes the rows in two layouts, and the pool."""
    for subset in dict.fromkeys(row.subset for row in rows):
        (folder / "mmeb" / subset).mkdir(parents=True)
        table = pa.Table.from_pylist([_mmeb(row) for row in rows if row.subset == subset])
        pq.write_table(table, folder / "mmeb" / subset / "original-00000-of-00001.parquet")
    _write_lines(
        folder / "truth.jsonl",
        (pair for number, row in enumerate(rows) for pair in _pairs(number, row)),
    )
    sought = {TO_IMAGE: pool.pictures, TO_TEXT: pool.texts}
    asked = [subset for subset in sought if any(row.subset == subset for row in rows)]
    items = (
        {"subset": name, "text": side.text, "image": side.image}
        for name in asked
        for side in sought[name]
    )
    _write_lines(folder / "items.jsonl", items)


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


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
            "query_id": f"{row.subset}/{number:05}",
            "query_text": row.query.text,
            "query_image": row.query.image,
            "positive_text": side.text,
            "positive_image": side.image,
        }


def _name(place: int) -> str:
    return f"{place:05d}.png"


def main() -> None:
    """Reads the command line and writes the data."""
    parser = argparse.ArgumentParser(prog="python -m demo.data")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=["train", "eval"], required=True)
    parser.add_argument("--scenes", type=int, required=True, help="number of images in the pool")
    parser.add_argument(
        "--queries", type=int, help="number of scenes that queries search for; default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--left-open", type=float, default=Recipe.left_open, help="share of unmentioned colours"
    )
    parser.add_argument("--long", type=float, default=Recipe.long, help="share of long captions")
    parser.add_argument(
        "--to-image", type=float, default=Recipe.to_image, help="share of queries for an image"
    )
    given = vars(parser.parse_args())
    folder, queries = given.pop("folder"), given.pop("queries")
    make_data(folder, Recipe(queries=queries or given["scenes"], **given))


if __name__ == "__main__":
    main()
