"""Files of rows, and their imports."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from miner.importers.building.build import build
from unijudge.formats.corpus import Corpus

ROWS = [
    {
        "query_text": "a",
        "query_image": None,
        "positive_text": None,
        "positive_image": "x.png",
        "query_id": "1",
    },
    {
        "query_text": "a",
        "query_image": None,
        "positive_text": "x",
        "positive_image": None,
        "query_id": "1",
    },
    {
        "query_text": None,
        "query_image": "x.png",
        "positive_text": "x",
        "positive_image": None,
        "query_id": "2",
    },
]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        names = list(rows[0])
        lines = [",".join(names), *(",".join(row[name] or "" for name in names) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


def take(rows, tmp_path, images, max_rejects=0.0):
    made = build(
        rows, images=images, out=tmp_path / "corpus", source="test", max_rejects=max_rejects
    )
    rejects = [
        json.loads(line)
        for line in (tmp_path / "corpus" / "rejects.jsonl").read_text().splitlines()
    ]
    assert made.rejects == len(rejects)
    return Corpus(tmp_path / "corpus"), rejects
