"""The logits of the next token in float32, for models of any dtype.

In bfloat16 a logit between 16 and 32 is a multiple of 0.125, and the log-odds of two logits are too, so most pairs tie.

Letters: Q questions · D the width of a hidden state · V the vocabulary.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ROWS_AT_ONCE = 16_384
"""The number of rows of the head that are in float32 at the same time: 224 MiB at a width of 3,584."""


def float32_logits(hidden_QD: Tensor, weight_VD: Tensor) -> Tensor:
    """Multiplies hidden states by the head, with products and sums in float32.

    A head in bfloat16 is never copied as a whole. Some of its rows are cast, used and freed, then cast again in the
    backward pass. The backward pass keeps the original weight, so a head that shares its weight with the embeddings
    still shares it.

    Args:
        hidden_QD: Hidden states, of any floating dtype.
        weight_VD: The head, of any floating dtype.

    Returns:
        (Q, V), float32, with gradients to both if they require them.

    Example:
        >>> hidden, weight = torch.tensor([[1.0, 2.0 ** -9]]), torch.tensor([[16.0, 8.0], [16.0, 0.0]])
        >>> F.linear(hidden.bfloat16(), weight.bfloat16()).tolist()
        [[16.0, 16.0]]
        >>> float32_logits(hidden.bfloat16(), weight.bfloat16()).tolist()
        [[16.015625, 16.0]]
    """
    if weight_VD.dtype == torch.float32:
        return _product(hidden_QD, weight_VD)
    parts = [
        checkpoint(_product, hidden_QD, rows, use_reentrant=False, preserve_rng_state=False)
        for rows in weight_VD.split(ROWS_AT_ONCE)
    ]
    return torch.cat(parts, dim=-1)


def _product(hidden_QD: Tensor, weight_VD: Tensor) -> Tensor:
    return F.linear(hidden_QD.float(), weight_VD.float())
