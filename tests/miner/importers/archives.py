"""Archives of pictures, and their imports."""

import json
import zipfile

from miner.importers.building.build import build
from miner.importers.pairs import read_pairs
from unijudge.formats.corpus import Corpus


def archive(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def take(rows, out, images, max_rejects=0.0):
    build(rows, images=images, out=out, source="test", max_rejects=max_rejects)
    rejects = [
        json.loads(line)["reason"] for line in (out / "rejects.jsonl").read_text().splitlines()
    ]
    return Corpus(out), rejects


def pairs(tmp_path, *images):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"query_text": f"q{number}", "positive_image": image} for number, image in enumerate(images)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pairs(path)
