"""The training loop: plain torch on accelerate. The loop knows batches and a loss, but no judges, queries or images.

The seed and the step alone determine the rows of an update and the random numbers of dropout. The number of
interruptions and the number of processes change neither.
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
"""The prefix of the internal metric that holds the share of an update's rows with an observed value."""


class MicroBatch(NamedTuple):
    """One batch of an update."""

    step: int
    rows: Rows
    share: float
    """The share of the batch's rows in the update's rows. The mean loss of the batch has this weight in the update."""
    seed: int
    """The random seed of dropout."""


class Task(Protocol[B]):
    """A model and the batches from which the model learns."""

    model: nn.Module
    """The model on its device, identical in every process. At least one parameter requires a gradient."""

    def batch(self, rows: Sequence[int], step: int) -> B:
        """Makes a batch of some rows, the same batch for the same arguments. Threads call this method ahead of time."""
        ...

    def loss(self, batch: B) -> Terms:
        """Returns the mean loss of a batch."""
        ...

    def guard(self, part: MicroBatch, batch: B) -> AbstractContextManager[None]:
        """Returns a context for the passes of one batch. The context replaces errors of torch by errors with a cure."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the trained parameters into a folder."""
        ...

    def load(self, folder: Path) -> None:
        """Loads the trained parameters from a folder."""
        ...


def fit(
    task: Task[B],
    order: BatchSampler,
    run: Run,
    settings: LoopSettings,
    report: Callable[[int, float], None],
    accelerator: Accelerator,
) -> None:
    """Trains the parameters of the task's model that require a gradient. Starts from the run's last checkpoint.

    Args:
        task: The model and its batches.
        order: The assignment of rows to batches.
        run: The folder for metrics and checkpoints.
        settings: The number of steps, the batch size and the learning rate.
        report: A function that the first process calls with (step, loss) after each update.
        accelerator: The processes of the job.

    Raises:
        NonFiniteLoss: The loss or the gradient was not finite. Every process raises this error before the update.
    """
    trainable, each = _trainable(task.model), batches_each(order.accumulation_steps, accelerator)
    optimizer = torch.optim.AdamW(
        trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_schedule(step, settings.warmup_steps, settings.max_steps)
    )
    done = _resume(run, task, optimizer, schedule, accelerator)
    steps = range(done + 1, settings.max_steps + 1)
    parts = parts_of(order, steps, accelerator)
    task.model.train()
    with closing(
        prefetch(parts, lambda part: task.batch(part.rows.tolist(), part.step), settings.workers)
    ) as batches:
        for step in steps:
            own = Counter[str]()
            for part, batch in islice(batches, each):
                torch.manual_seed(part.seed)
                with task.guard(part, batch):
                    own.update(_backward(task.loss(batch), part.share))
            add_up_gradients(trainable, accelerator)
            metrics = _sums(gather_object([own]))
            metrics["gradient_norm"] = float(
                nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm)
            )
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
    """Returns the factor of the learning rate, which rises to 1 during the warm-up and then falls to 0 at the end.

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
        raise TrainingError("no parameter of the model requires a gradient. Add a LoRA first")
    return trainable


def batches_each(accumulation_steps: int, accelerator: Accelerator) -> int:
    """Returns how many batches of an update each process computes.

    Raises:
        TrainingError: The batches cannot be divided evenly among the processes.
    """
    if accumulation_steps % accelerator.num_processes:
        raise TrainingError(
            f"gradient_accumulation_steps = {accumulation_steps}: the batches of an update cannot be divided evenly "
            f"among {accelerator.num_processes} processes. Make gradient_accumulation_steps a multiple of "
            f"{accelerator.num_processes}"
        )
    return accumulation_steps // accelerator.num_processes


def parts_of(order: BatchSampler, steps: range, accelerator: Accelerator) -> Iterator[MicroBatch]:
    """Yields the batches of each update that this process computes."""
    for step in steps:
        batches = order.batches(step)
        total = sum(len(rows) for rows in batches)
        for index in range(accelerator.process_index, len(batches), accelerator.num_processes):
            yield MicroBatch(
                step, batches[index], len(batches[index]) / total, order.dice(step, index)
            )


def _backward(terms: Terms, share: float) -> dict[str, float]:
    """Adds the gradients of a batch to those of the update, and returns the batch's part of the update's metrics."""
    losses = [term for term in terms.values() if isinstance(term, Tensor)]
    loss = torch.stack(losses).sum()
    (loss * share).backward()

    # Another batch of the update may lack an observed value, so the share of the rows that have it is counted.
    values = {"loss": loss}
    seen_of = {}
    for name, term in terms.items():
        if isinstance(term, Observed):
            values[name] = term.value
            seen_of[f"{OF}{name}"] = share
        else:
            values[name] = term

    # All numbers leave the device at once.
    numbers = torch.stack([value.detach().float() for value in values.values()]) * share
    return dict(zip(values, numbers.tolist(), strict=True)) | seen_of


def _check_finite(step: int, metrics: Mapping[str, float], run: Run) -> None:
    """Raises an error if a metric is not finite. All processes have the same sums, so all processes raise the error."""
    loss, norm = metrics["loss"], metrics["gradient_norm"]
    if not math.isfinite(loss + norm):
        raise NonFiniteLoss(
            f"step {step}: loss {loss}, gradient norm {norm}: not finite, so the training stopped before the update "
            f"and saved nothing of this step in {run.folder}. Start again in another folder, with a lower "
            "learning_rate or higher temperatures"
        )


def _sums(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the summed metrics of all processes. An observed value is the mean over the rows that have this value."""
    total = Counter[str]()
    for part in parts:
        total.update(part)
    return {
        name: value / total.get(f"{OF}{name}", 1.0)
        for name, value in total.items()
        if not name.startswith(OF)
    }


def _state(step: int, optimizer: Any, schedule: Any) -> dict[str, Any]:
    return {"step": step, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}


def _resume(
    run: Run, task: Task[Any], optimizer: Any, schedule: Any, accelerator: Accelerator
) -> int:
    """Loads the last intact checkpoint, and returns its step, or 0 if there is no checkpoint."""
    shared = [run.checkpoints.last_whole() if accelerator.is_main_process else None]
    broadcast_object_list(shared)
    step, checkpoint = 0, shared[0]
    if checkpoint is not None:
        state = load_state(checkpoint)
        task.load(checkpoint / "adapter")
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step = int(state["step"])
    if accelerator.is_main_process:
        run.forget_after(step)
        if step:
            logger.info("%s: resuming from step %d", run.folder, step)
    return step
