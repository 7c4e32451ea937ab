"""The files of each importer: captioned pictures in any layout. A new importer is one line of `LAYOUTS`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = tuple[str, str]
"""The name of a picture, and its caption."""


@dataclass(frozen=True)
class Layout:
    """One importer, as the table of faults uses it."""

    name: str
    """Of the command."""
    write: Callable[[Path, Sequence[Row]], Path]
    """Writes rows into a folder, and returns the file or the folder to import."""
    text: str = ""
    """The files that are text, as a pattern."""
    table: Callable[[Path, Sequence[dict[str, Any]]], Path] | None = None
    """Writes a Parquet file of rows, where the importer reads such files."""
    query: str = ""
    """The columns of such a file: the query's text, the query's picture, the positive's text."""
    picture: str = ""
    positive: str = ""
    more: tuple[str, ...] = ()
    """Words of the command that it cannot do without."""
    rows_for_one: int = 1
    """What one captioned picture becomes: two rows where both directions are asked."""
    free_columns: bool = False
    """Whether files with columns of any name are read, also as CSV."""


def pairs(folder: Path, rows: Sequence[Row]) -> Path:
    return _lines(
        folder / "rows.jsonl", [{"query_image": name, "positive_text": text} for name, text in rows]
    )


def tuples(folder: Path, rows: Sequence[Row]) -> Path:
    return _lines(
        folder / "rows.jsonl",
        [{"anchor": {"image": name}, "positive": text} for name, text in rows],
    )


def mmeb(folder: Path, rows: Sequence[Row]) -> Path:
    cells = [
        {"qry": "<|image_1|>", "qry_image_path": name, "pos_text": text, "pos_image_path": ""}
        for name, text in rows
    ]
    return in_subset("original")(folder, cells)


def mmeb_eval(folder: Path, rows: Sequence[Row]) -> Path:
    cells = [
        {
            "qry_text": "<|image_1|>",
            "qry_img_path": name,
            "tgt_text": [text, "other"],
            "tgt_img_path": ["", ""],
        }
        for name, text in rows
    ]
    return in_subset("test")(folder, cells)


def unime(folder: Path, rows: Sequence[Row]) -> Path:
    cells = [
        {
            "query_text": "", "query_image": name, "pos_text": text, "pos_image": "", "query_pos_scores": 0.9,
            "hard_negatives": [["other", ""]], "hard_negatives_scores": [0.2],
        }
        for name, text in rows
    ]  # fmt: skip
    return _whole(folder / "rows.json", cells)


def karpathy(folder: Path, rows: Sequence[Row]) -> Path:
    images = [
        {"filename": name, "split": "test", "sentences": [{"raw": text}]} for name, text in rows
    ]
    return _whole(folder / "dataset_rows.json", {"images": images})


def sharegpt4v(folder: Path, rows: Sequence[Row]) -> Path:
    cells = [
        {
            "image": name,
            "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": text}],
        }
        for name, text in rows
    ]
    return _whole(folder / "rows.json", cells)


def urban1k(folder: Path, rows: Sequence[Row]) -> Path:
    (folder / "caption").mkdir(parents=True, exist_ok=True)
    for name, text in rows:
        (folder / "caption" / f"{Path(name).stem}.txt").write_text(text + "\n", encoding="utf-8")
    return folder


def sugarcrepe(folder: Path, rows: Sequence[Row]) -> Path:
    cells = {
        str(number): {"filename": name, "caption": text, "negative_caption": "other"}
        for number, (name, text) in enumerate(rows)
    }
    return _whole(folder / "swap_att.json", cells).parent


def in_subset(split: str) -> Callable[[Path, Sequence[dict[str, Any]]], Path]:
    def write(folder: Path, rows: Sequence[dict[str, Any]] | pa.Table) -> Path:
        (folder / "Digits").mkdir(parents=True, exist_ok=True)
        return one_table(folder / "Digits", rows, f"{split}-00000.parquet").parent.parent

    return write


def one_table(
    folder: Path, rows: Sequence[dict[str, Any]] | pa.Table, name: str = "rows.parquet"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
    pq.write_table(table, folder / name)
    return folder / name


def _lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def _whole(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


LAYOUTS = (
    Layout(
        "pairs",
        pairs,
        "*.jsonl",
        one_table,
        "query_text",
        "query_image",
        "positive_text",
        free_columns=True,
    ),
    Layout(
        "sentence-transformers",
        tuples,
        "*.jsonl",
        one_table,
        "",
        "anchor",
        "positive",
        free_columns=True,
    ),
    Layout("mmeb", mmeb, "", in_subset("original"), "qry", "qry_image_path", "pos_text"),
    Layout("mmeb-eval", mmeb_eval),
    Layout("unime", unime, "*.json", more=("SCORES",)),
    Layout("karpathy", karpathy, "*.json", rows_for_one=2),
    Layout("sharegpt4v", sharegpt4v, "*.json", rows_for_one=2),
    Layout("urban1k", urban1k, "caption/*.txt", rows_for_one=2),
    Layout("sugarcrepe", sugarcrepe, "*.json"),
)
