"""The training loop: plain torch on accelerate. Knows batches and a loss; nothing of judges, queries or images.

What an update is made of, its rows and what dropout draws for each batch, depends on the seed and the step alone: not
on how often the run was interrupted, nor on how many processes share it.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from trainer.data.prefetch import prefetch
from trainer.data.sampler import BatchSampler
from trainer.losses.terms import Observed, Terms
from trainer.training.checkpoints import load_state
from trainer.training.distributed import add_up_gradients
from trainer.training.run_folder import Run
from trainer.training.settings import LoopSettings
from unijudge.errors import NonFiniteLoss, TrainingError
from unijudge.formats.lazy_table import Rows

logger = logging.getLogger(__name__)

B = TypeVar("B")


OF = "share of rows with "
"""Before the name of what was observed: the part of an update's rows that it was observed of."""


class MicroBatch(NamedTuple):
    """One batch of an update."""

    step: int
    rows: Rows
    share: float
    """Its rows as a part of the update's: what its mean loss counts for."""
    seed: int
    """Of its dropout."""


class Task(Protocol[B]):
    """What is trained, and on what."""

    model: nn.Module
    """On its device, the same in every process, with some parameters that require a gradient."""

    def batch(self, rows: Sequence[int], step: int) -> B:
        """Makes one batch of some rows, the same one each time; called in threads, ahead of its step."""
        ...

    def loss(self, batch: B) -> Terms:
        """Returns the mean loss of a batch."""
        ...

    def guard(self, part: MicroBatch, batch: B) -> AbstractContextManager[None]:
        """Stands around the passes of one batch: turns a foreign error into one that says what to do."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the trained parameters into a folder."""
        ...

    def load(self, folder: Path) -> None:
        """Reads the trained parameters back."""
        ...


def fit(
    task: Task[B],
    order: BatchSampler,
    run: Run,
    settings: LoopSettings,
    report: Callable[[int, float], None],
    accelerator: Accelerator,
) -> None:
    """Trains the parameters of the task's model that require a gradient, from the run's last checkpoint on.

    Args:
        task: What is trained, and on what.
        order: Which rows make which batch.
        run: Where metrics and checkpoints go.
        settings: Steps, sizes, rates.
        report: Is called with (step, loss) after each update, in the first process.
        accelerator: The processes.

    Raises:
        NonFiniteLoss: In every process, before the update.
    """
    trainable, each = _trainable(task.model), batches_each(order.accumulation_steps, accelerator)
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_schedule(step, settings.warmup_steps, settings.max_steps)
    )
    done = _resume(run, task, optimizer, schedule, accelerator)
    steps = range(done + 1, settings.max_steps + 1)
    parts = parts_of(order, steps, accelerator)
    task.model.train()
    with closing(prefetch(parts, lambda part: task.batch(part.rows.tolist(), part.step), settings.workers)) as batches:
        for step in steps:
            found = Counter[str]()
            for part, batch in islice(batches, each):
                torch.manual_seed(part.seed)
                with task.guard(part, batch):
                    found.update(_backward(task.loss(batch), part.share))
            add_up_gradients(trainable, accelerator)
            metrics = _sums(gather_object([found]))
            metrics["gradient_norm"] = float(nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm))
            _check_finite(step, metrics, run)
            metrics["learning_rate"] = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            accelerator.log(metrics, step=step)
            if accelerator.is_main_process:
                run.log(step=step, **metrics)
                report(step, metrics["loss"])
                if step % settings.save_steps == 0 and step < settings.max_steps:
                    run.checkpoints.save(step, _state(step, optimizer, schedule), task.save)
    if accelerator.is_main_process:
        run.finish(task.save)


def linear_schedule(step: int, warmup_steps: int, steps: int) -> float:
    """The factor of the learning rate: up to 1 over the warm-up, then down to 0 at the end.

    Example:
        >>> [linear_schedule(step, 2, 6) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (steps - step) / max(1, steps - warmup_steps)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError("no parameter of the model requires a gradient; add a LoRA first")
    return trainable


def batches_each(accumulation_steps: int, accelerator: Accelerator) -> int:
    """How many batches of an update each process does.

    Raises:
        TrainingError: They cannot be shared out evenly.
    """
    if accumulation_steps % accelerator.num_processes:
        raise TrainingError(
            f"gradient_accumulation_steps = {accumulation_steps}: the batches of an update cannot be shared out "
            f"evenly among {accelerator.num_processes} processes; make it a multiple of that"
        )
    return accumulation_steps // accelerator.num_processes


def parts_of(order: BatchSampler, steps: range, accelerator: Accelerator) -> Iterator[MicroBatch]:
    """What this process does of each update."""
    for step in steps:
        batches = order.batches(step)
        total = sum(len(rows) for rows in batches)
        for place in range(accelerator.process_index, len(batches), accelerator.num_processes):
            yield MicroBatch(step, batches[place], len(batches[place]) / total, order.dice(step, place))


def _backward(terms: Terms, share: float) -> dict[str, float]:
    """Adds one batch's gradients to those of its update, and returns what it adds to the update's metrics."""
    loss = torch.stack([term for term in terms.values() if isinstance(term, Tensor)]).sum()
    (loss * share).backward()
    values = {name: term.value if isinstance(term, Observed) else term for name, term in terms.items()}
    numbers = torch.stack([value.detach().float() for value in (loss, *values.values())]) * share
    seen_of = {f"{OF}{name}": share for name, term in terms.items() if isinstance(term, Observed)}
    return dict(zip(("loss", *values), numbers.tolist(), strict=True)) | seen_of


def _check_finite(step: int, metrics: Mapping[str, float], run: Run) -> None:
    """The same in every process, since each has the sums of all."""
    loss, norm = metrics["loss"], metrics["gradient_norm"]
    if not math.isfinite(loss + norm):
        raise NonFiniteLoss(
            f"step {step}: loss {loss}, gradient norm {norm}; stopped before the update, nothing of it was "
            f"saved in {run.folder}. Begin again in another folder, with a lower learning_rate or higher temperatures"
        )


def _sums(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of all processes; what was observed of a part of the rows is the mean over that part."""
    total = Counter[str]()
    for one in found:
        total.update(one)
    return {name: value / total.get(f"{OF}{name}", 1.0) for name, value in total.items() if not name.startswith(OF)}


def _state(step: int, optimizer: Any, schedule: Any) -> dict[str, Any]:
    return {"step": step, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}


def _resume(run: Run, task: Task[Any], optimizer: Any, schedule: Any, accelerator: Accelerator) -> int:
    """Loads the last whole checkpoint into everything, and returns its step; 0 without one."""
    found = [run.checkpoints.last_whole() if accelerator.is_main_process else None]
    broadcast_object_list(found)
    step, checkpoint = 0, found[0]
    if checkpoint is not None:
        state = load_state(checkpoint)
        task.load(checkpoint / "adapter")
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step = int(state["step"])
    if accelerator.is_main_process:
        run.forget_after(step)
        if step:
            logger.info("%s: going on from step %d", run.folder, step)
    return step
