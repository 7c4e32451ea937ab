"""A training of one linear layer, for which every number can be computed by hand."""

import contextlib
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from trainer.data.sampler import BatchSampler
from trainer.training.loop import fit
from trainer.training.run_folder import Run
from trainer.training.settings import LoopSettings

SETTINGS = LoopSettings(
    max_steps=12,
    batch_size=2,
    gradient_accumulation_steps=2,
    learning_rate=0.1,
    warmup_steps=3,
    save_steps=5,
)


DATA = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


def order_of(settings):
    groups = np.zeros(len(DATA), int)
    accumulation_steps = settings.gradient_accumulation_steps
    return BatchSampler(
        groups,
        batch_size=settings.batch_size,
        accumulation_steps=accumulation_steps,
        seed=settings.seed,
    )


class ToyTask:
    """A task with the rows of `DATA`. One file holds the whole model."""

    def __init__(self, model, loss):
        self.model, self._loss = model, loss

    def batch(self, rows, _step):
        return DATA[rows]

    def loss(self, batch):
        return self._loss(self.model, batch)

    def guard(self, _part, _batch):
        return contextlib.nullcontext()

    def save(self, folder):
        Path(folder).mkdir(exist_ok=True)
        torch.save(self.model.state_dict(), folder / "weights.pt")

    def load(self, folder):
        self.model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))


def train(folder, *, stop_at=None, loss=None, settings=SETTINGS, accelerator=None, report=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    noisy = nn.Dropout(0.5)
    steps = []

    def interrupt(step, value):
        steps.append(step)
        if step == stop_at:
            raise KeyboardInterrupt

    def default(module, batch):
        return {"squared": ((module(noisy(batch)) - 1) ** 2).mean()}

    accelerator = accelerator or Accelerator(cpu=True)
    with accelerator.main_process_first():
        run = Run(folder, settings, {})
    with contextlib.suppress(KeyboardInterrupt):
        task = ToyTask(model, loss or default)
        fit(task, order_of(settings), run, settings, report or interrupt, accelerator)
    return model, run, steps


def lines(run):
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
