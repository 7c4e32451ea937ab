"""What a loss gives to the training loop: its terms, and what was observed on the way."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Observed:
    """A scalar that is logged beside the loss, such as an entropy, and is no part of it."""

    value: Tensor


Terms = Mapping[str, Tensor | Observed]
"""A loss by its terms, scalars, already weighted: their sum is minimised, each is logged by its name. So is what was
observed on the way."""
