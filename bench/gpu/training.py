"""Steps 5 and 7: rows per second of the trainer, its memory compared with the estimate, and 4-bit weights."""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bench.gpu.options import Options
from bench.gpu.product import device_name, product_rate
from bench.gpu.step import Case, Figures, Outcome, Skipped, Step, Table, number
from bench.peaks import peak_of

ROWS = (0, 5)
"""Rows of each batch of `training_rows`: an image query with text candidates, and a text query with images."""
PACKAGES = ["torch", "transformers", "peft", "accelerate"]


def train(options: Options, *, dtype: str = "bfloat16", checkpointing: bool) -> Figures:
    """Measures forward and backward passes of an embedder with a LoRA, as in `train embedder`."""
    import torch

    from bench.made_up import training_rows
    from bench.trainer import flops, opened, ours
    from trainer.models.settings import BackboneSettings

    scale, device = options.scale, options.device
    name, rate = device_name(device), product_rate(device, scale.product_size)
    backbone = opened(
        str(options.training_folder),
        device=device,
        dtype=dtype,
        batch_tokens=BackboneSettings().batch_tokens,
        max_pixels=scale.training_pixels,
        vision_cache_mb=0,
    )
    backbone.model.train()
    if checkpointing:
        backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    batches = [
        [batch[row] for row in ROWS]
        for batch in training_rows(scale.training_batches + 1, 1, seed=1)
    ]
    warming, *todo = batches

    def finished() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    # Warm-up: the first batch loads kernels and allocates the gradients, so it is not measured.
    weights = torch.cuda.memory_allocated() if device == "cuda" else None
    ours(backbone, warming)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun = finished()
    for examples in todo:
        ours(backbone, examples)
    seconds = finished() - begun
    return {
        "device": name,
        "maker_peak": peak_of(name),
        "product_rate": rate,
        "rows": len(todo) * len(ROWS),
        "seconds": seconds,
        "flops": sum(flops(backbone, examples) for examples in todo),
        "weights_bytes": weights,
        "peak_bytes": torch.cuda.max_memory_allocated() - weights if device == "cuda" else None,
        "estimate_bytes": estimate(backbone, todo, checkpointing=checkpointing),
    }


def estimate(backbone: Any, batches: Sequence[Any], *, checkpointing: bool) -> int | None:
    """Returns the trainer's estimate of the memory without the weights, in bytes; None if the trainer has no estimate.

    The moments of an optimizer are not included, because no weight is updated here.
    """
    from bench.trainer import trained
    from trainer.data.collate import collate
    from trainer.models.embedder import stream_of

    if importlib.util.find_spec("trainer.training.memory") is None:
        return None
    from trainer.training.memory import training_memory

    streams = []
    for examples in batches:
        batch = collate(examples)
        streams.append(
            [[stream_of(backbone, content) for content in (*batch.queries, *batch.candidates)]]
        )
    need = training_memory(backbone, streams, checkpointing=checkpointing, questions=False)
    gradients = sum(parameter.nbytes for parameter in trained(backbone).values())
    return need.total - need.adapter + gradients


def train_on_four_bits(options: Options) -> Figures:
    """Measures the trainer with 4-bit weights (QLoRA)."""
    if options.dry_run:
        raise Skipped("model.dtype = 'nf4' needs a GPU")
    return train(options, dtype="nf4", checkpointing=True)


def _tables(step: Step, outcomes: Mapping[str, Outcome]) -> list[Table]:
    rows = []
    for name, case in step.cases.items():
        rows.append([case.title, *_row(outcomes[name].figures)])
    header = [
        "way", "rows/s", "useful TFLOP/s", "model FLOPs utilisation", "weights, GiB", "peak without weights, GiB",
        "estimate, GiB",
    ]  # fmt: skip
    note = (
        "A row is a query with nine candidates, and a batch has two rows. Useful work counts each distinct input and "
        "image once, and not the second computation of checkpointing. Utilisation is the share of the maker's peak in "
        "bfloat16. If the table of peaks does not contain the device, it is the share of the measured rate of a large "
        "matrix product. The estimate comes from `trainer.training.memory`, without an optimizer."
    )
    return [Table(header, rows, note)]


def _row(figures: Figures) -> list[str]:
    if not figures:
        return [number(None, "")] * 6
    useful = figures["flops"] / figures["seconds"]
    peak = figures["maker_peak"] or figures["product_rate"]
    memory = [figures["weights_bytes"], figures["peak_bytes"], figures["estimate_bytes"]]
    in_gib = [size / 2**30 if size is not None else None for size in memory]
    return [
        number(figures["rows"] / figures["seconds"], ".2f"),
        number(useful / 1e12, ".3g"),
        number(useful / peak, ".1%"),
        *(number(size, ".3g") for size in in_gib),
    ]


TRAINER = Step(
    name="trainer",
    title="Trainer",
    about="Forward and backward passes of an embedder with a LoRA in bfloat16, without updates.",
    cases={
        "kept": Case("no checkpointing", partial(train, checkpointing=False), PACKAGES),
        "checkpointing": Case(
            "gradient checkpointing", partial(train, checkpointing=True), PACKAGES
        ),
    },
    tables=lambda outcomes: _tables(TRAINER, outcomes),
    models=["student"],
)
FOUR_BITS = Step(
    name="nf4",
    title="Four bits",
    about="The same with `model.dtype = 'nf4'`: frozen 4-bit weights, with gradient checkpointing.",
    cases={"nf4": Case("nf4", train_on_four_bits, [*PACKAGES, "bitsandbytes"])},
    tables=lambda outcomes: _tables(FOUR_BITS, outcomes),
    models=["student"],
)
