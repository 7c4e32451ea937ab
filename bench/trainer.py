"""Compares several ways of training the embedder, with the same rows and weights, each in a separate process.

    .venv/bin/python -m bench.trainer          prints a Markdown table for each set of rows

The model is a Qwen2.5-VL with 33 million parameters, random weights and a LoRA (rank 16, all linear layers of the
language model), in float32. One thread runs, and its CPU seconds are counted. Rows have MMEB's mix of images and texts,
with 1 + 8 candidates, and a batch has eight rows.

"UniME-V2's scheme" is the scheme of its released code: every input runs together with one other input, padded to the
longer one, twice (GradCache: once for the loss, once for the gradients). Images are prepared again for every use. Every
way uses the prompts and images of unijudge.

No weight is updated, so the gradients of all batches are summed and can be compared. The gradient difference is the
largest difference of a weight's gradient, as a share of the largest gradient in its matrix. Before the measurement,
every way runs a row that is not measured.
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import trainer.models.length_buckets
from bench.made_up import BATCH, NEGATIVES, training_rows
from judge_service.backends.model_shapes import shape_of
from trainer.data.collate import collate
from trainer.data.dataset import Example
from trainer.losses.distillation import symmetric_kl
from trainer.models.backbone import Backbone, open_backbone
from trainer.models.embedder import embed, stream_of
from trainer.models.lora import add_lora
from trainer.models.settings import BackboneSettings, LoraSettings
from unijudge.content import Content
from unijudge.images.image_processing import PictureReader
from unijudge.judging.flops import ModelShape, text_flops, vision_flops

UNBOUNDED = 10**9
WAYS = {
    "reference": "UniME-V2's scheme",
    "plain": "transformers, one padded batch, one pass",
    "once": "unijudge: each input once",
    "buckets": "unijudge: inputs of similar length together, too",
    "ours": "unijudge, complete: vision features cached, too",
}
SETS = {
    "every candidate once": (1, 1, ("reference", "plain", "ours")),
    "every candidate four times": (2, 4, tuple(WAYS)),
}
"""Number of batches, how often a candidate occurs in them, and the ways. In an epoch of MMEB's 662,172 rows, a
candidate occurs in about 13 rows."""
Way = Callable[[Backbone, Sequence[Example]], None]


def loss(vectors_BCD: Tensor, examples: Sequence[Example]) -> Tensor:
    """Returns UniME-V2's loss of vectors (rows, query and candidates, width)."""
    student = (vectors_BCD[:, :1] * vectors_BCD[:, 1:]).sum(-1)
    teacher = torch.tensor([example.teacher for example in examples], device=student.device)
    return symmetric_kl(student, teacher, student_temperature=0.02, teacher_temperature=0.02)


def ours(backbone: Backbone, examples: Sequence[Example]) -> None:
    """Runs a batch as `train embedder` does."""
    batch = collate(examples)
    queries, candidates = embed(backbone, [*batch.queries, *batch.candidates]).split(
        [len(batch.queries), len(batch.candidates)]
    )
    loss(torch.cat([queries[:, None], candidates[batch.columns_BK]], 1), examples).backward()


def prepared(backbone: Backbone, contents: Sequence[Content]) -> dict[str, Tensor]:
    """Returns the model inputs of one padded batch. Every image is decoded and processed again."""
    backbone.inputs.pictures = PictureReader(backbone.inputs.family, max_source_pixels=UNBOUNDED)
    streams = [stream_of(backbone, content) for content in contents]
    arrays = backbone.inputs.token_arrays(streams) | backbone.inputs.picture_arrays(streams)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def forward(backbone: Backbone, inputs: dict[str, Tensor]) -> Tensor:
    """Returns the unit vectors of the model's own forward pass."""
    hidden_BSD = backbone.model.get_base_model().model(**inputs, use_cache=False).last_hidden_state
    last_B = inputs["attention_mask"].sum(1) - 1
    return F.normalize(hidden_BSD[torch.arange(len(last_B)), last_B], dim=-1)


def plain(backbone: Backbone, examples: Sequence[Example]) -> None:
    """Runs a batch as one padded batch."""
    contents = [content for example in examples for content in (example.query, *example.candidates)]
    loss(
        forward(backbone, prepared(backbone, contents)).unflatten(0, (len(examples), -1)), examples
    ).backward()


def reference(backbone: Backbone, examples: Sequence[Example]) -> None:
    """Runs GradCache with chunks of two: (query, negatives 1, 3, …) of all rows, then (positive, negatives 2, 4, …)."""
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


def opened(folder: str, **chosen: Any) -> Backbone:
    """Opens the model with a LoRA of random weights. In a new LoRA half of the weights and gradients are zero."""
    chosen = {"batch_tokens": UNBOUNDED} | chosen
    backbone = open_backbone(BackboneSettings(name=folder, **chosen))
    torch.manual_seed(0)
    add_lora(backbone, LoraSettings())
    for one in trained(backbone).values():
        torch.nn.init.normal_(one, std=0.02)
    return backbone


def trained(backbone: Backbone) -> dict[str, Tensor]:
    """Returns the parameters of the LoRA."""
    return {name: one for name, one in backbone.model.named_parameters() if one.requires_grad}


def measure(way: str, folder: str, batches: int, repeats: int) -> dict[str, float]:
    """Measures one way on one set of rows, and saves its gradients in the folder."""
    if way in ("plain", "once", "reference"):
        trainer.models.length_buckets.MOST_PADDING = UNBOUNDED
    backbone = opened(
        folder, device="cpu", max_pixels=224 * 224, vision_cache_mb=1024 if way == "ours" else 0
    )
    step: Way = {"reference": reference, "plain": plain}.get(way, ours)
    (warming,) = training_rows(1, repeats, seed=7)
    step(backbone, warming[:1])
    backbone.model.zero_grad()
    todo = training_rows(batches, repeats, seed=1)
    begun = time.process_time()
    for examples in todo:
        step(backbone, examples)
    seconds = time.process_time() - begun
    torch.save(
        {name: one.grad for name, one in trained(backbone).items()}, f"{folder}/{way}-{repeats}.pt"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows_per_s": batches * BATCH / seconds, "peak_mb": peak}


def difference(folder: str, way: str, repeats: int) -> float:
    """Returns the difference between the gradients of a way and of the reference."""
    theirs, found = (torch.load(f"{folder}/{one}-{repeats}.pt") for one in ("reference", way))
    return max(
        ((found[name] - one).abs().max() / one.abs().max()).item() for name, one in theirs.items()
    )


def describe(batches: int, repeats: int) -> str:
    """Returns a description of the repeated candidates in a batch."""
    distinct = [len(collate(batch).candidates) for batch in training_rows(batches, repeats, seed=1)]
    return f"{BATCH * (1 + NEGATIVES)} candidates in a batch, {sum(distinct) / batches:.0f} of them distinct"


def main() -> None:
    """Runs every way, one after another, and prints the tables."""
    with tempfile.TemporaryDirectory() as folder:
        make = "from demo.tiny_model import make_model; from pathlib import Path; "
        make += (
            f"make_model(Path('{folder}'), width=512, layers=8, vision_width=320, vision_layers=6)"
        )
        subprocess.run([sys.executable, "-c", make], check=True)
        for title, (batches, repeats, ways) in SETS.items():
            told = f"{title}: {describe(batches, repeats)}"
            print(
                f"\n| {told} | rows/s | ratio | peak memory, MB | gradient difference |\n|---|---|---|---|---|"
            )
            base = 0.0
            for way in ways:
                command = [
                    sys.executable,
                    "-m",
                    "bench.trainer",
                    way,
                    folder,
                    str(batches),
                    str(repeats),
                ]
                done = subprocess.run(
                    command,
                    check=True,
                    capture_output=True,
                    text=True,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
                one = json.loads(re.findall(r"^RESULT (.*)$", done.stdout, re.MULTILINE)[-1])
                base = base or one["rows_per_s"]
                figures = f"{one['rows_per_s']:.2f} | {one['rows_per_s'] / base:.2f} | {one['peak_mb']:.0f}"
                print(
                    f"| {WAYS[way]} | {figures} | {difference(folder, way, repeats):.1e} |",
                    flush=True,
                )


def flops(backbone: Backbone, examples: Sequence[Example]) -> float:
    """Returns the least work of a batch, in floating-point operations, if no image is cached.

        Σ inputs [2 · linear · n + 3 · attention · n · (n + 1) / 2 + 6 · P · n] + Σ pictures ViT

    Each distinct input of n tokens runs forward, and its gradient runs backward: once through frozen weights, and twice
    through attention and the P weights of the LoRA. Linear, attention and ViT are defined in `unijudge.judging.flops`.
    """
    shape = cast("ModelShape", shape_of(backbone.inputs.config))
    batch = collate(examples)
    streams = {tuple(stream_of(backbone, one)) for one in [*batch.queries, *batch.candidates]}
    weights = sum(one.numel() for one in trained(backbone).values())
    lengths = [backbone.inputs.length(list(stream)) for stream in streams]
    text = sum(
        3 * text_flops(shape, n, 0) + (6 * weights - shape.linear_flops) * n for n in lengths
    )
    pictures = {entry for stream in streams for entry in stream if isinstance(entry, bytes)}
    return text + sum(
        vision_flops(shape.vision, len(backbone.inputs.pictures(one).token_ids)) for one in pictures
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("RESULT " + json.dumps(measure(*sys.argv[1:3], *map(int, sys.argv[3:]))))
    else:
        main()
