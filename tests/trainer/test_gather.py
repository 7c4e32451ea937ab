"""Several processes: their averaged gradients are those of one process that holds all rows, for every loss."""

import subprocess
import sys

import pytest
import torch

from tests.trainer.shares import LOSSES, example, gradients
from trainer.collate import collate


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """By number of processes: the averaged gradients of all losses."""
    folder = tmp_path_factory.mktemp("shares")
    subprocess.run([sys.executable, "-m", "tests.trainer.shares", folder], check=True, timeout=300)
    return {size: torch.load(folder / f"gradients-{size}.pt", weights_only=True) for size in (2, 4)}


@pytest.fixture(scope="module")
def alone():
    return gradients(range(8))


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_shared_rows_give_the_gradients_of_all_rows(loss, processes, shared, alone):
    assert alone[loss].abs().max() > 1e-2
    assert (shared[processes][loss] - alone[loss]).abs().max() < 1e-9


def test_the_rows_of_the_test_share_candidates_unevenly_and_know_positives_of_others():
    shares = [collate([example(row) for row in range(rank, 8, 4)]) for rank in range(4)]
    sizes = [len(share.candidates) for share in shares]
    assert len(set(sizes)) > 1
    whole = collate([example(row) for row in range(8)])
    assert len(whole.candidates) < sum(sizes), "one content on two processes"
    assert whole.known_BU.sum() > sum(share.known_BU.sum() for share in shares), "a known positive on another process"
