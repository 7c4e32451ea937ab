"""A tiny student's gradients of eight rows, on one process or shared among several: what `test_gather.py` compares.

python -m tests.trainer.shares FOLDER: four processes, then two. They are forked before torch has begun any thread, so
that it is loaded once.
"""

import hashlib
import multiprocessing
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer.collate import collate
from trainer.examples import Example
from trainer.loop import Observed
from trainer.train_embedder import terms_of
from trainer.training_settings import LossSettings
from unijudge.corpus import Content

NAMES = ("symmetric_kl", "js", "kl", "margin_mse", "infonce")
LOSSES = {
    f"{name}, in batch {weight:g}": LossSettings(
        name=name, student_temperature=0.1, teacher_temperature=0.2, in_batch_weight=weight
    )
    for name in NAMES
    for weight in (0.0, 0.7)
}
CANDIDATES = ["a b c", "d e f", "a d g", "h b i", "a b c", "j a k", "d l m", "n o c"]
"""Of each row, the positive first: rows share some, on one process or on two, so each process has another number."""
ALSO_KNOWN = {1: "n", 6: "a"}
"""Positives of a row that stand in the batch as another row's candidates."""


def example(row):
    keys = CANDIDATES[row].split()
    return Example(
        query=Content(text=f"query {row}"),
        candidates=[Content(text=key) for key in keys],
        candidate_keys=[key.encode() for key in keys],
        teacher=[0.9 - 0.05 * row, 0.2 + 0.1 * (row % 3), 0.1 * (row % 5)],
        positive_keys=frozenset(key.encode() for key in (keys[0], *ALSO_KNOWN.get(row, ()))),
        weight=1 - row / 10,
    )


def features(content):
    seed = int.from_bytes(hashlib.sha256(content.text.encode()).digest()[:4], "big")
    return torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(rows):
    """By loss: the gradient of the student's weights for some rows."""
    torch.manual_seed(0)
    student = nn.Linear(6, 4, dtype=torch.float64)
    batch = collate([example(row) for row in rows])
    found = {}
    for name, settings in LOSSES.items():
        queries, candidates = (
            F.normalize(student(torch.stack([*map(features, contents)])), dim=-1)
            for contents in (batch.queries, batch.candidates)
        )
        terms = terms_of(settings, batch, queries, candidates)
        sum(term for term in terms.values() if not isinstance(term, Observed)).backward()
        found[name] = torch.cat([parameter.grad.flatten() for parameter in student.parameters()])
        student.zero_grad()
    return found


def share(folder, rank, size):
    """One process."""
    met = f"file://{folder}/met-{size}"
    dist.init_process_group("gloo", met, rank=rank, world_size=size, timeout=timedelta(minutes=1))
    found = gradients(range(rank, 8, size))
    for name in found:
        dist.all_reduce(found[name])
        found[name] /= size
    if rank == 0:
        torch.save(found, f"{folder}/gradients-{size}.pt")
    dist.destroy_process_group()


def main(folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=share, args=(folder, rank, size), daemon=True) for size in (4, 2) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    main(sys.argv[1])
