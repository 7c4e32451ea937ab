"""Embeds a batch of any size within the memory of one chunk, with the gradients of the whole.

In-batch negatives make one loss of all rows, so a batch cannot be cut. But its vectors are small: only the hidden
states behind them are large. So each chunk is embedded without keeping these; in the backward pass, when the loss has
told how each vector should move, the chunk is embedded once more, now to be differentiated, and let go before the next.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainer.models.backbone import Backbone
from trainer.models.embedder import embed
from unijudge.content import Content


def embed_in_chunks(backbone: Backbone, contents: Sequence[Content], size: int) -> Tensor:
    """Embeds contents, in order, keeping the hidden states of at most `size` of them at once.

    Dropout draws the same in both passes, on any device: each chunk has a seed of its own, drawn from torch's state.

    Args:
        backbone: The model.
        contents: The batch's.
        size: Contents in a chunk, at least 1.

    Returns:
        (contents, width), float32, of unit length: the vectors of `embed`, and its gradients.

    Raises:
        DataError: A content is too long, or its picture cannot be decoded.

    Source:
        Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", arXiv 2101.06983.
    """
    chunks = [contents[start : start + size] for start in range(0, len(contents), size)]
    chunks += [contents[:1]] * (backbone.passes(len(chunks)) - len(chunks))
    seeds = torch.randint(2**63 - 1, (len(chunks),)).tolist()
    vectors = [
        checkpoint(_embed_seeded, backbone, chunk, seed, use_reentrant=False, preserve_rng_state=False)
        for chunk, seed in zip(chunks, seeds, strict=True)
    ]
    return torch.cat(vectors)[: len(contents)]


def _embed_seeded(backbone: Backbone, chunk: Sequence[Content], seed: int) -> Tensor:
    """The same in the forward and in the backward pass.

    `checkpoint` alone would not do: it restores a GPU's random state only where a tensor on that GPU is an argument.
    """
    torch.manual_seed(seed)
    return embed(backbone, chunk)
