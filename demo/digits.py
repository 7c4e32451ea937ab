"""The demo's data: the 1,797 handwritten digits inside scikit-learn, as two tasks.

    python -m demo.digits FOLDER

    FOLDER/images/0000.png …             8 × 8 pixels, enlarged to 56 × 56
    FOLDER/mmeb/Digits_cls, Digits_i2i   training rows in the MMEB-train layout: digit → name, digit → the same digit
    FOLDER/eval.jsonl                    evaluation rows of other digits, as pairs; every image of the class is right

Source: the test set of "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WHICH = "Which digit is shown in the image?\n"
SAME = "Find an image that shows the same digit.\n"
TARGET = "Represent the given image.\n"
SIDE = 56
NUM_TRAIN, NUM_EVAL = 200, 100
"""Queries of each task; images are never shared between training and evaluation."""


def make_data(folder: Path, seed: int = 0) -> None:
    """Writes pictures, training rows and evaluation rows."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    (folder / "images").mkdir(parents=True)
    for row in order:
        pixels = (digits.images[row] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / "images" / _name(row))
    train, held_out = order[: len(order) // 2], order[len(order) // 2 :]
    for task, rows in {
        "Digits_cls": _classify(train, digits.target),
        "Digits_i2i": _pair(train, digits.target),
    }.items():
        (folder / "mmeb" / task).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "mmeb" / task / "original-00000-of-00001.parquet")
    rows = _evaluation(held_out, digits.target)
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{folder}: {len(order)} images, {2 * NUM_TRAIN} training and {2 * NUM_EVAL} evaluation queries")


def _classify(rows: np.ndarray, labels: np.ndarray) -> list[dict[str, str]]:
    return [_mmeb(WHICH, _name(row), NAMES[labels[row]], "") for row in rows[:NUM_TRAIN]]


def _pair(rows: np.ndarray, labels: np.ndarray) -> list[dict[str, str]]:
    """Each query with the next image of its class: a true pair, among many images that would be right as well."""
    made = []
    for place, row in enumerate(rows[NUM_TRAIN : 2 * NUM_TRAIN], start=NUM_TRAIN):
        twin = next(other for other in rows[place + 1 :] if labels[other] == labels[row])
        made.append(_mmeb(SAME, _name(row), f"<|image_1|>\n{TARGET}", _name(twin)))
    return made


def _mmeb(query: str, query_image: str, text: str, image: str) -> dict[str, str]:
    return {
        "qry": f"<|image_1|>\n{query}",
        "qry_image_path": query_image,
        "pos_text": text,
        "pos_image_path": image,
    }


def _evaluation(rows: np.ndarray, labels: np.ndarray) -> list[dict[str, str]]:
    asked, pool = rows[: 2 * NUM_EVAL], rows[2 * NUM_EVAL : 4 * NUM_EVAL]
    made = [
        {"subset": "Digits_cls", "query_text": WHICH, "query_image": _name(row), "positive_text": NAMES[labels[row]]}
        for row in asked[:NUM_EVAL]
    ]
    for row in asked[NUM_EVAL:]:
        query = {"subset": "Digits_i2i", "query_id": f"i2i/{row}", "query_text": SAME, "query_image": _name(row)}
        made += [
            query | {"positive_text": TARGET, "positive_image": _name(other)}
            for other in pool
            if labels[other] == labels[row]
        ]
    return made


def _name(row: int) -> str:
    return f"{row:04d}.png"


if __name__ == "__main__":
    make_data(Path(sys.argv[1]))
