"""Runs a function in several processes that are forked from this one, as accelerate's launcher does for CPUs."""

import json
import sys
from functools import partial

import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState, GradientState


def launched(work, processes, folder):
    """Returns the results (JSON) of `work` in each process, by rank. An error in a process is raised here."""
    folder.mkdir(parents=True, exist_ok=True)
    if processes == 1:
        return [json.loads(json.dumps(work()))]
    _forget_vllm()
    debug_launcher(partial(_within, work, folder), num_processes=processes)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def _forget_vllm():
    """Removes the process group of an earlier test's engine. A forked process would use it as its own."""
    if "vllm" in sys.modules:
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def _within(work, folder):
    torch.set_num_threads(1)  # the threads of the parent do not exist in a fork
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    found = work()
    (folder / f"rank-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
