"""The training loop: plain torch on accelerate. Knows batches and a loss; nothing of judges, queries or images.

The order of rows depends on the seed alone, not on how often the run was interrupted. One process, for now.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from trainer.runs import Run
from trainer.training_settings import LoopSettings
from unijudge.errors import NonFiniteLoss, TrainingError

B = TypeVar("B")


@dataclass(frozen=True)
class Observed:
    """A scalar that is logged beside the loss, such as an entropy, and is no part of it."""

    value: Tensor


Terms = Mapping[str, Tensor | Observed]
"""A loss by its terms, scalars, already weighted: their sum is minimised, each is logged by its name. So is what was
observed on the way."""


class Weights(Protocol):
    """Where the trained parameters go, and come from."""

    def save(self, folder: Path) -> None:
        """Writes them into a folder."""
        ...

    def load(self, folder: Path) -> None:
        """Reads them back."""
        ...


def fit(
    model: nn.Module,
    num_rows: int,
    batch_of: Callable[[Sequence[int], int], B],
    loss_of: Callable[[nn.Module, B], Terms],
    run: Run,
    settings: LoopSettings,
    weights: Weights,
    report: Callable[[int, float], None],
) -> None:
    """Trains the parameters of `model` that require a gradient, from the run's last checkpoint on.

    Args:
        model: On its device, with some parameters that require a gradient.
        num_rows: How many training rows there are.
        batch_of: Row numbers and the step → a batch, the same whenever it is asked for.
        loss_of: The mean loss of a batch.
        run: Where metrics and checkpoints go.
        settings: Steps, sizes, rates.
        weights: Saves and loads the trained parameters.
        report: Is called with (step, loss) after each update.

    Raises:
        NonFiniteLoss: Before the update; the last checkpoint is good.
    """
    accelerator = Accelerator(cpu=next(model.parameters()).device.type == "cpu")
    if accelerator.num_processes > 1:
        raise TrainingError("several processes are not supported yet; start one, and raise `accumulate` instead")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError("no parameter of the model requires a gradient; add a LoRA first")
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_schedule(step, settings.warmup_steps, settings.steps)
    )
    done = _resume(run, weights, optimizer, schedule)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    prepared.train()
    for step in range(done + 1, settings.steps + 1):
        groups = rows_of_step(step, num_rows, settings)
        found, observed = Counter[str](), Counter[str]()
        for rows in groups:
            terms = loss_of(prepared, batch_of(rows, step))
            losses = {name: term for name, term in terms.items() if isinstance(term, Tensor)}
            accelerator.backward(torch.stack([*losses.values()]).sum() / len(groups))
            found.update({name: term.item() / len(groups) for name, term in losses.items()})
            seen = {name: term.value for name, term in terms.items() if isinstance(term, Observed)}
            observed.update({name: value.item() / len(groups) for name, value in seen.items()})
        total = float(sum(found.values()))
        norm = float(accelerator.clip_grad_norm_(trainable, settings.max_gradient_norm))
        if not math.isfinite(total + norm):
            raise NonFiniteLoss(
                f"step {step}: loss {total}, gradient norm {norm}; stopped before the update. The last good checkpoint "
                f"is {run.latest or 'none yet'}; lower learning_rate, or raise the temperatures"
            )
        run.log(step=step, loss=total, **found, **observed, gradient_norm=norm, learning_rate=schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(step, total)
        if step % settings.save_every_steps == 0 and step < settings.steps:
            run.save(step, _state(step, optimizer, schedule), weights.save)
    run.finish(weights.save)


def rows_of_step(step: int, num_rows: int, settings: LoopSettings) -> list[list[int]]:
    """The row numbers of one update, in `accumulate` groups. Each epoch is a new permutation of all rows."""
    size = settings.batch_size * settings.accumulate
    positions = range((step - 1) * size, step * size)
    rows = [_row(position, num_rows, settings.seed) for position in positions]
    return [rows[start : start + settings.batch_size] for start in range(0, size, settings.batch_size)]


def linear_schedule(step: int, warmup_steps: int, steps: int) -> float:
    """The factor of the learning rate: up to 1 over the warm-up, then down to 0 at the end.

    Example:
        >>> [linear_schedule(step, 2, 6) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (steps - step) / max(1, steps - warmup_steps)


def _row(position: int, num_rows: int, seed: int) -> int:
    epoch, place = divmod(position, num_rows)
    return int(_permutation(num_rows, seed, epoch)[place])


@lru_cache(maxsize=2)
def _permutation(num_rows: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def _state(step: int, optimizer: Any, schedule: Any) -> dict[str, Any]:
    return {
        "step": step,
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all(),
    }


def _resume(run: Run, weights: Weights, optimizer: Any, schedule: Any) -> int:
    """Loads the last checkpoint into everything, and returns its step; 0 without one."""
    checkpoint = run.latest
    if checkpoint is None:
        run.forget_after(0)
        return 0
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    weights.load(checkpoint / "adapter")
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["random"])
    torch.cuda.set_rng_state_all(state["random_cuda"])
    run.forget_after(state["step"])
    return int(state["step"])
