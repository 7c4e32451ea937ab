"""Prints the cost that `mine estimate` predicts for a job beside the cost that `mine score` counts.

    .venv/bin/python -m bench.counted [--backend vllm] [--queries 240] [--k 12]

The job has three subsets: image → text, text → image, and image → image. Texts have 4 to 60 words. The model is a
Qwen2.5-VL with random weights. The service runs behind Ray Serve. The sample of the estimate is scored by one service
and the job by another service, so that no answer of the job is in a cache at its start.
"""

import argparse
import io
import json
import random
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from bench.made_up import UNIJUDGE, make_vectors, sentence, serving
from unijudge.formats.scores import ScoreTotals
from unijudge.storage.files import read_json

SHAPES = ((True, False), (False, True), (True, True))
"""Whether query and positive are images."""


def make(folder: Path, queries: int) -> Path:
    """Writes a corpus of pairs, and its vectors. Returns the folder of the corpus."""
    dice = random.Random(1)  # noqa: S311  reproducible, not secret
    (folder / "images").mkdir()
    lines = []
    for number in range(queries):
        row = {"subset": f"subset {number % len(SHAPES)}"}
        for side, has_image in zip(
            ("query", "positive"), SHAPES[number % len(SHAPES)], strict=True
        ):
            row[f"{side}_text"] = f"{sentence(dice, dice.randint(4, 60))} {number}"
            if has_image:
                name = row[f"{side}_image"] = f"{side}-{number}.png"
                out = io.BytesIO()
                size = dice.choice([(112, 112), (168, 112), (112, 84)])
                Image.frombytes("RGB", (4, 4), dice.randbytes(48)).resize(size).save(out, "PNG")
                (folder / "images" / name).write_bytes(out.getvalue())
        lines.append(json.dumps(row))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    corpus = folder / "corpus"
    images = f"--images={folder / 'images'}"
    subprocess.run(
        [*UNIJUDGE, "mine", "import", "pairs", folder / "pairs.jsonl", corpus, images], check=True
    )
    make_vectors(corpus, folder / "vectors", 64)
    return corpus


def main(backend: str, queries: int, k: int, probe: int) -> None:
    """Estimates and scores a job, and prints a table."""
    from demo.tiny_model import make_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_model(folder / "model")
        service = {
            "model.name": folder / "model", "model.backend": backend, "model.min_pixels": 784,
            "model.max_pixels": 12544, "health.min_label_mass": 0, "health.canary_every_s": 0,
        }  # fmt: skip
        corpus = make(folder, queries)
        words = [f"corpus={corpus}", f"vectors={folder / 'vectors'}", f"out={folder / 'scores'}"]
        words += [f"k={k}", "min_label_mass=0"]
        with serving(service, 300) as url:
            estimate = ["mine", "estimate", *words, f"service={url}", f"--probe={probe}", "--json"]
            printed = subprocess.check_output([*UNIJUDGE, *estimate], text=True)
        with serving(service, 300) as url:
            subprocess.run([*UNIJUDGE, "mine", "score", *words, f"service={url}"], check=True)
        totals = read_json(folder / "scores" / "totals.json", ScoreTotals)

    predicted = json.loads(printed)["cost"]
    print(f"\n| {backend}, {totals.counts.asked:,} pairs | predicted | actual | difference |")
    print("|---|---|---|---|")
    for name, actual in totals.counts.cost or ():
        difference = predicted[name] / actual - 1
        print(
            f"| {name.replace('_', ' ')} | {predicted[name]:,} | {actual:,} | {difference:+.1%} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="vllm", choices=["vllm", "transformers"])
    parser.add_argument("--queries", type=int, default=240)
    parser.add_argument("--k", type=int, default=12)
    parser.add_argument("--probe", type=int, default=200)
    options = parser.parse_args()
    main(options.backend, options.queries, options.k, options.probe)
