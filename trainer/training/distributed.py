"""The processes of one job: how they join, which process writes, and how their gradients are summed.

The launcher of torch or accelerate starts several processes with the same command:

    torchrun --nproc-per-node 8 -m unijudge train embedder run.toml
    accelerate launch --config_file deploy/recipes/accelerate/ddp.yaml -m unijudge train embedder run.toml

All processes hold the same frozen weights, so the model needs no wrapper. The processes sum the adapter's gradients
once per update, however many passes produced these gradients. If one process fails, the launcher ends the others. If a
job runs on several machines, all machines must see the same folders.
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

LAUNCHED = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)
"""The environment variables in which a launcher gives a process its rank and address."""


@contextlib.contextmanager
def processes(
    device: str, out: Path, trackers: Sequence[str] = (), patience: timedelta | None = None
) -> Iterator[Accelerator]:
    """Joins the processes of one job. Only the first process writes to the output folder, and it holds the lease.

    Args:
        device: The device of the settings. `cpu` uses no GPU.
        out: The output folder.
        trackers: The trackers that receive metrics beside the folder of the run.
        patience: How long the processes wait for each other. None: the default of torch.

    Raises:
        FolderBusy: Another job writes to the output folder.
        SettingsError: A tracker is not installed, or accelerate's configuration does not fit.
    """
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise SettingsError(
                f"trackers: {name} is not installed. Run pip install 'unijudge[trackers]', or leave {name} out"
            )
    folder = {"project_dir": str(out / "trackers"), "log_with": list(trackers)} if trackers else {}
    waiting = [] if patience is None else [InitProcessGroupKwargs(timeout=patience)]
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    group_of_others = torch.distributed.is_initialized()
    given = sorted(
        name for name in os.environ if name in LAUNCHED or name.startswith("ACCELERATE_")
    )
    try:
        accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=waiting, **folder)
    except Exception as error:
        # torch and accelerate raise errors of many types for a bad environment.
        raise SettingsError(
            f"the processes of this job cannot join each other with the launcher's environment variables "
            f"({in_one_line(error)}). Unset {listed(given) or 'the variables that a launcher sets'}, or start all "
            "processes with torchrun or accelerate launch"
        ) from error
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise SettingsError(
            f"{accelerator.distributed_type.value}: accelerate's configuration asks for this way to split a model, but "
            "only FSDP is supported. Use deploy/recipes/accelerate/ddp.yaml or fsdp.yaml"
        )
    sharding = None
    if accelerator.distributed_type == DistributedType.FSDP:
        sharding = accelerator.state.fsdp_plugin
    if sharding and sharding.cpu_ram_efficient_loading:
        raise SettingsError(
            "fsdp_cpu_ram_efficient_loading: this option leaves every process except the first without weights. Set "
            "the option to false in accelerate's configuration"
        )
    if not accelerator.is_main_process:
        # The first process prints the warnings.
        logging.getLogger("trainer").setLevel(logging.ERROR)
    with lease(out) if accelerator.is_main_process else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        yield accelerator
        for tracker in accelerator.trackers:
            tracker.finish()
        # Other code in this process, vLLM for example, may have created the process group and may still use the group.
        if not group_of_others:
            accelerator.state.destroy_process_group()


def add_up_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Replaces the gradients of every process by their sum over all processes.

    If a number is not finite in one process, the sum is not finite either, so every process notices.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [
        torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in parameters
    ]
    total = accelerator.reduce(torch.cat([gradient.ravel() for gradient in gradients]), "sum")
    for parameter, part in zip(
        parameters, total.split([weight.numel() for weight in parameters]), strict=True
    ):
        parameter.grad = part.view_as(parameter)
