"""All steps, in the order in which they run."""

from bench.gpu import judging, machine, models, parity, search, serving, training

STEPS = (
    machine.STEP, models.STEP, parity.STEP, judging.STEP, serving.STEP, training.TRAINER, search.STEP,
    training.FOUR_BITS,
)  # fmt: skip
NAMES = tuple(step.name for step in STEPS)
