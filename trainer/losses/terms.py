"""The result of a loss for the training loop: the terms of the loss, and values that are only logged."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Observed:
    """A scalar, such as an entropy, that is logged with the loss but is not part of the loss."""

    value: Tensor


Terms = Mapping[str, Tensor | Observed]
"""The terms of a loss and the observed values, by name. The terms are scalars, already weighted, and training minimises
their sum. All terms and observed values are logged."""
