"""Training the embedder, side by side: the same rows and weights through every way, each in a process of its own.

    .venv/bin/python -m bench.trainer        prints a Markdown table for each set of rows

A 45-million-parameter Qwen2.5-VL with random weights and a LoRA (rank 16, all linear layers of the language model),
float32, one thread, whose own seconds are counted. Rows are of MMEB's mix, with 1 + 8 candidates, eight in a batch.
"UniME-V2's scheme" is what its released code does: every input with one neighbour, padded to it, twice (GradCache: once
for the loss, once for the gradients); its pictures prepared for every use. Prompts and pictures are ours in every way.
Nothing is updated, so the gradients of all batches add up and can be compared: a difference is the largest of a weight's
gradient, as a share of the largest gradient in its matrix. Before the clock starts every way has run another row.
"""

import hashlib
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

import trainer.buckets
from trainer.backbone import Backbone, add_lora, open_backbone
from trainer.collate import collate
from trainer.embedder import embed, stream_of
from trainer.examples import Example
from trainer.losses import symmetric_kl
from trainer.settings import BackboneSettings
from trainer.training_settings import LoraSettings
from unijudge.corpus import Content
from unijudge.pictures import PictureReader

BATCH, BATCHES, NEGATIVES = 8, 2, 8
KINDS = [(True, False)] * 5 + [(False, True)] * 2 + [(True, True)]
"""Whether query and candidates are pictures: 61, 25 and 14 % of MMEB's rows; of eight, 5, 2 and 1."""
SETS = {"every candidate in one row": 1, "every candidate in four rows": 4}
"""How often a candidate comes again; in an epoch of MMEB's 662,172 rows about 13 times."""
UNBOUNDED = 10**9
WAYS = {
    "reference": "UniME-V2's scheme",
    "plain": "transformers, one padded batch, one pass",
    "once": "unijudge: each input once",
    "buckets": "… and like lengths together",
    "ours": "… and vision features kept: as it is",
}
Way = Callable[[Backbone, Sequence[Example]], None]


def rows(batches: int, repeats: int, seed: int) -> list[list[Example]]:
    """Made-up rows, in batches. Each candidate is drawn `repeats` times; queries never come again."""
    dice = random.Random(seed)  # noqa: S311  reproducible, not secret

    def text() -> str:  # a label, a caption, or a dialogue
        words = dice.choice([2, 2, 12, 12, 12, 50])
        return " ".join(dice.choices(["red", "seven", "bridge", "a photo of", "under", "the table"], k=words))

    def picture() -> bytes:
        out = io.BytesIO()
        size = dice.choice([(640, 480), (480, 640), (500, 375), (512, 512), (640, 360)])
        Image.frombytes("RGB", (8, 8), dice.randbytes(192)).resize(size).save(out, "JPEG", quality=90)
        return out.getvalue()

    def content(*, image: bool) -> Content:
        return Content("Represent the given image.\n", picture()) if image else Content(text())

    def pool(*, images: bool) -> list[Content]:
        draws = batches * (1 + NEGATIVES) * sum(kind[1] == images for kind in KINDS)
        found = [content(image=images) for _ in range(-(-draws // repeats))] * repeats
        dice.shuffle(found)
        return found

    pools = {images: pool(images=images) for images in (False, True)}
    return [[_example(content(image=q), pools[c], dice) for q, c in KINDS] for _ in range(batches)]


def _example(query: Content, pool: list[Content], dice: random.Random) -> Example:
    taken = [pool.pop() for _ in range(1 + NEGATIVES)]
    keys = [hashlib.sha256(repr(one).encode()).digest() for one in taken]
    teacher = [dice.uniform(0.5, 0.9), *(dice.uniform(0.0, 0.8) for _ in range(NEGATIVES))]
    return Example(query, taken, keys, teacher, frozenset(keys[:1]))


def loss(vectors_BCD: Tensor, examples: Sequence[Example]) -> Tensor:
    """UniME-V2's, of (rows, query and candidates, width)."""
    student = (vectors_BCD[:, :1] * vectors_BCD[:, 1:]).sum(-1)
    teacher = torch.tensor([example.teacher for example in examples])
    return symmetric_kl(student, teacher, student_temperature=0.02, teacher_temperature=0.02)


def ours(backbone: Backbone, examples: Sequence[Example]) -> None:
    """As `train embedder` does."""
    batch = collate(examples)
    queries, candidates = embed(backbone, [*batch.queries, *batch.candidates]).split(
        [len(batch.queries), len(batch.candidates)]
    )
    loss(torch.cat([queries[:, None], candidates[batch.columns_BK]], 1), examples).backward()


def prepared(backbone: Backbone, contents: Sequence[Content]) -> dict[str, Tensor]:
    """What the model takes of one padded batch, every picture of it decoded and processed anew."""
    backbone.inputs.pictures = PictureReader(backbone.inputs.family, max_source_pixels=UNBOUNDED)
    streams = [stream_of(backbone, content) for content in contents]
    arrays = backbone.inputs.token_arrays(streams) | backbone.inputs.picture_arrays(streams)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def forward(backbone: Backbone, inputs: dict[str, Tensor]) -> Tensor:
    """Unit vectors by the model's own forward."""
    hidden_BSD = backbone.model.get_base_model().model(**inputs, use_cache=False).last_hidden_state
    last_B = inputs["attention_mask"].sum(1) - 1
    return F.normalize(hidden_BSD[torch.arange(len(last_B)), last_B], dim=-1)


def plain(backbone: Backbone, examples: Sequence[Example]) -> None:
    """One batch, padded to its longest."""
    contents = [content for example in examples for content in (example.query, *example.candidates)]
    loss(forward(backbone, prepared(backbone, contents)).unflatten(0, (len(examples), -1)), examples).backward()


def reference(backbone: Backbone, examples: Sequence[Example]) -> None:
    """GradCache with chunks of two, over (query, negatives 1, 3, …) of all rows, then (positive, negatives 2, 4, …)."""
    grid = [[example.query, *example.candidates] for example in examples]
    columns = [[0, *range(2, 2 + NEGATIVES, 2)], [1, *range(3, 2 + NEGATIVES, 2)]]
    places = [(row, column) for side in columns for row in range(len(grid)) for column in side]
    chunks = [places[start : start + 2] for start in range(0, len(places), 2)]
    inputs = [prepared(backbone, [grid[row][column] for row, column in chunk]) for chunk in chunks]
    with torch.no_grad():
        vectors = torch.cat([forward(backbone, chunk) for chunk in inputs]).requires_grad_()
    order = torch.tensor([place for place, _ in sorted(enumerate(places), key=lambda one: one[1])])
    loss(vectors[order].unflatten(0, (len(grid), -1)), examples).backward()
    for chunk, gradient in zip(inputs, vectors.grad.split(2), strict=True):
        (forward(backbone, chunk) * gradient).sum().backward()


def measure(way: str, folder: str, repeats: int) -> dict[str, float]:
    """Times one way over one set of rows, and leaves its gradients in the folder."""
    cache = 1024 if way == "ours" else 0
    if way in ("plain", "once", "reference"):
        trainer.buckets.MOST_PADDING = UNBOUNDED
    backbone = open_backbone(
        BackboneSettings(name=folder, device="cpu", max_pixels=224 * 224, batch_tokens=UNBOUNDED, vision_cache_mb=cache)
    )
    torch.manual_seed(0)
    add_lora(backbone, LoraSettings())
    trained = {name: one for name, one in backbone.model.named_parameters() if one.requires_grad}
    for one in trained.values():
        torch.nn.init.normal_(one, std=0.02)  # a fresh LoRA is zero in one half, and so is the other half's gradient
    step: Way = {"reference": reference, "plain": plain}.get(way, ours)
    (warming,) = rows(1, repeats, seed=7)
    step(backbone, warming[:1])
    backbone.model.zero_grad()
    todo = rows(BATCHES, repeats, seed=1)
    begun = time.process_time()
    for examples in todo:
        step(backbone, examples)
    seconds = time.process_time() - begun
    torch.save({name: one.grad for name, one in trained.items()}, f"{folder}/{way}-{repeats}.pt")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows_per_s": BATCHES * BATCH / seconds, "peak_mb": peak}


def difference(folder: str, way: str, repeats: int) -> float:
    """Of the gradients to the reference's."""
    theirs, found = (torch.load(f"{folder}/{one}-{repeats}.pt") for one in ("reference", way))
    return max(((found[name] - one).abs().max() / one.abs().max()).item() for name, one in theirs.items())


def describe(repeats: int) -> str:
    """How much of a batch comes again."""
    batches = rows(BATCHES, repeats, seed=1)
    distinct = sum(len(collate(batch).candidates) for batch in batches) / BATCHES
    return f"{BATCH * (1 + NEGATIVES)} candidates of a batch, {distinct:.0f} of them distinct"


def main() -> None:
    """Runs every way, one after another, and prints the tables."""
    with tempfile.TemporaryDirectory() as folder:
        make = "from demo.tiny_model import make_model; from pathlib import Path; "
        make += f"make_model(Path('{folder}'), width=512, layers=12, vision_width=320, vision_layers=6)"
        subprocess.run([sys.executable, "-c", make], check=True)
        for title, repeats in SETS.items():
            print(f"\n| {title}: {describe(repeats)} | rows/s | ratio | peak memory, MB | gradient difference |")
            print("|---|---|---|---|---|")
            base = 0.0
            for way, name in WAYS.items():
                command = [sys.executable, "-m", "bench.trainer", way, folder, str(repeats)]
                done = subprocess.run(
                    command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
                one = json.loads(re.findall(r"^RESULT (.*)$", done.stdout, re.MULTILINE)[-1])
                base = base or one["rows_per_s"]
                figures = f"{one['rows_per_s']:.2f} | {one['rows_per_s'] / base:.2f} | {one['peak_mb']:.0f}"
                print(f"| {name} | {figures} | {difference(folder, way, repeats):.1e} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("RESULT " + json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        main()
