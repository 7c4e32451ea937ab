"""The training loop of every stage, its learning rate, and its log."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Log:
    """The losses of the steps, printed and stored."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._begun = time.process_time()

    def __call__(self, stage: str, step: int, loss: float, **more: float) -> None:
        """Adds a line to the log."""
        line = {
            "stage": stage,
            "step": step,
            "cpu_s": round(time.process_time() - self._begun),
            "loss": round(loss, 4),
        }
        self.lines.append(line | {name: round(value, 4) for name, value in more.items()})
        print(self.lines[-1], flush=True)


def learn(
    parameters: Iterable[torch.nn.Parameter],
    steps: int,
    losses_of: Callable[[int], Iterable[Tensor]],
    rate: Callable[[float], float],
    log: Callable[[int, float], None],
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Trains with AdamW and a learning rate by progress in [0, 1). Logs a smoothed loss every hundred steps.

    The loss of a step consists of terms that are computed one after another, so memory for one term is enough.
    """
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.02, betas=(0.9, 0.98))
    smooth = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step / steps) * min(1.0, (step + 1) / 30)
        optimizer.zero_grad()
        loss = 0.0
        for term in losses_of(step):
            term.backward()
            loss += term.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        smooth = loss if step == 0 else 0.95 * smooth + 0.05 * loss
        done = step + 1 == steps or enough()
        if done or (step + 1) % 100 == 0:
            log(step + 1, smooth)
        if done:
            break


def cosine(peak: float, floor: float = 0.05) -> Callable[[float], float]:
    """Returns a cosine schedule from `peak` down to `floor` times `peak`."""
    return lambda progress: peak * ((1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)) + floor)
