"""One process or many: who they are, who writes, and how what they found is put together.

Several are started by torch's or accelerate's launcher, each with the same command:

    torchrun --nproc-per-node 8 -m unijudge train embedder run.toml
    accelerate launch --config_file deploy/recipes/accelerate/ddp.yaml -m unijudge train embedder run.toml

The model's frozen weights are the same everywhere, so the processes need no wrapper around it: they add up the
adapter's gradients once an update, whatever passes made them. If one process fails, the launcher ends the others. On
several machines all of them must see the same folders.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import nn

from unijudge.errors import SettingsError
from unijudge.shown import listed
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.leases import lease

LAUNCHED = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
"""Variables by which a launcher tells a process of its place."""


@contextlib.contextmanager
def processes(
    device: str, out: Path, trackers: Sequence[str] = (), patience: timedelta | None = None
) -> Iterator[Accelerator]:
    """Joins the processes of one job; the first one holds the lease of its output, and alone writes there.

    Args:
        device: `cpu` keeps off the GPUs.
        out: The output folder.
        trackers: Where metrics go beside the run's folder.
        patience: How long processes wait for one another; torch's own default if None.

    Raises:
        FolderBusy: Another job writes there.
        SettingsError: A tracker is not installed, or accelerate's configuration does not fit.
    """
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise SettingsError(f"trackers: {name} is not installed; pip install 'unijudge[trackers]', or leave it out")
    folder = {"project_dir": str(out / "trackers"), "log_with": list(trackers)} if trackers else {}
    waiting = [] if patience is None else [InitProcessGroupKwargs(timeout=patience)]
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    group_of_others = torch.distributed.is_initialized()
    given = sorted(name for name in os.environ if name in LAUNCHED or name.startswith("ACCELERATE_"))
    try:
        accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=waiting, **folder)
    except Exception as error:  # torch and accelerate have errors of many kinds for what they find there
        raise SettingsError(
            f"the processes of this job cannot be joined as the environment says ({in_one_line(error)}). Unset "
            f"{listed(given) or 'what a launcher sets'}, or start them all by torchrun or accelerate launch"
        ) from error
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise SettingsError(
            f"{accelerator.distributed_type.value}: accelerate's configuration asks for it, but only FSDP is known "
            "here; take deploy/recipes/accelerate/ddp.yaml or fsdp.yaml"
        )
    sharding = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if sharding and sharding.cpu_ram_efficient_loading:
        raise SettingsError(
            "fsdp_cpu_ram_efficient_loading: would leave every process but the first without weights; set it to false "
            "in accelerate's configuration"
        )
    if not accelerator.is_main_process:
        logging.getLogger("trainer").setLevel(logging.ERROR)  # the first process warns for all
    with lease(out) if accelerator.is_main_process else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        yield accelerator
        for tracker in accelerator.trackers:
            tracker.finish()
        # What else runs in this process, vLLM for example, may have made the group and still use it.
        if not group_of_others:
            accelerator.state.destroy_process_group()


def add_up_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Makes every process' gradients the sum of all processes'. A number that is not finite in one is so in all."""
    if accelerator.num_processes == 1:
        return
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    total = accelerator.reduce(torch.cat([gradient.ravel() for gradient in gradients]), "sum")
    for parameter, part in zip(parameters, total.split([one.numel() for one in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
