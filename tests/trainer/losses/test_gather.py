"""The averaged gradients of several processes equal the gradients of one process with all rows, for every loss."""

import hashlib

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import nn

from tests.trainer.launched import launched
from trainer.data.collate import collate
from trainer.data.dataset import Example
from trainer.losses.settings import LossSettings
from trainer.losses.terms import Observed
from trainer.training.embedder import terms_of
from unijudge.alike import Excluded, sign_of
from unijudge.content import Content

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
        signs=[sign_of(key, None) for key in keys],
        teacher=[0.9 - 0.05 * row, 0.2 + 0.1 * (row % 3), 0.1 * (row % 5)],
        excluded=Excluded(
            frozenset(sign_of(key, None).content for key in (keys[0], *ALSO_KNOWN.get(row, ())))
        ),
        weight=1 - row / 10,
    )


def features(content):
    seed = int.from_bytes(hashlib.sha256(content.text.encode()).digest()[:4], "big")
    return torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(rows):
    """Returns for each loss the gradient of the student's weights for some rows."""
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


def averaged():
    """Returns the gradients of one process's rows, averaged over all processes."""
    accelerator = Accelerator(cpu=True)
    rank, size = accelerator.process_index, accelerator.num_processes
    found = gradients(range(rank, 8, size))
    for name in found:
        dist.all_reduce(found[name])
        found[name] /= size
    return {name: one.tolist() for name, one in found.items()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Returns for each number of processes the averaged gradients of all losses."""
    folder = tmp_path_factory.mktemp("shares")
    return {size: launched(averaged, size, folder / str(size))[0] for size in (2, 4)}


@pytest.fixture(scope="module")
def alone():
    return gradients(range(8))


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_shared_rows_give_the_gradients_of_all_rows(loss, processes, shared, alone):
    assert alone[loss].abs().max() > 1e-2
    assert (
        torch.tensor(shared[processes][loss], dtype=torch.float64) - alone[loss]
    ).abs().max() < 1e-9


def test_the_rows_of_the_test_share_candidates_unevenly_and_know_positives_of_others():
    shares = [collate([example(row) for row in range(rank, 8, 4)]) for rank in range(4)]
    sizes = [len(share.candidates) for share in shares]
    assert len(set(sizes)) > 1
    whole = collate([example(row) for row in range(8)])
    assert len(whole.candidates) < sum(sizes), "one content on two processes"
    assert whole.says_BU.sum() > sum(share.says_BU.sum() for share in shares), (
        "a known positive on another process"
    )
