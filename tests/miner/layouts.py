"""Small images, and the result of an import for tests."""

import json

from miner.importers.building.build import build
from tests.pictures import png
from unijudge.formats.corpus import Corpus


def images_under(tmp_path):
    folder = tmp_path / "MMEB"
    (folder / "images" / "CIRR").mkdir(parents=True)
    for name in "abc":
        (folder / f"{name}.png").write_bytes(png({"a": "red", "b": "green", "c": "blue"}[name]))
    (folder / "images" / "CIRR" / "a.png").write_bytes(png())
    return folder


def take(rows, tmp_path, images, max_rejects=0.0, published=None):
    out = tmp_path / "corpus"
    build(rows, images=images, out=out, source="test", max_rejects=max_rejects, published=published)
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    return Corpus(out), [(reject["row"], reject["reason"]) for reject in rejects]
