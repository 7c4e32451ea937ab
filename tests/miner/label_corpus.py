"""A corpus in which many rows have the same question."""

import json

from miner.importers.building.build import build
from miner.importers.pairs import read_pairs
from unijudge.formats.corpus import Corpus


def label_corpus(tmp_path, rows):
    """Rows with the same question and different items, and some rows with other questions."""
    lines = [
        {"query_text": "what is it?", "positive_text": f"right {number}"} for number in range(rows)
    ]
    lines += [
        {"query_text": f"find {number}", "positive_text": f"own {number}"} for number in range(20)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / f"corpus-{rows}"
    build(read_pairs(tmp_path / "rows.jsonl"), images=tmp_path, out=out, source="t", max_rejects=0)
    return Corpus(out)
