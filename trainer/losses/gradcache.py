"""Embeds a batch of any size within the memory of one chunk, with the gradients of the whole.

With in-batch negatives, the loss depends on all rows together, so a batch cannot be split into smaller batches. The
vectors of a batch are small, but the hidden states behind the vectors are large. So each chunk is first embedded
without keeping its hidden states. In the backward pass, when the gradients of the vectors are known, each chunk is
embedded a second time, differentiated, and freed before the next chunk.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainer.models.backbone import Backbone
from trainer.models.embedder import embed
from unijudge.content import Content


def embed_in_chunks(backbone: Backbone, contents: Sequence[Content], size: int) -> Tensor:
    """Embeds contents, in order, and keeps the hidden states of at most `size` contents at the same time.

    Dropout draws the same random numbers in both passes, on any device, since each chunk has a separate seed, drawn
    from the random state of torch.

    Args:
        backbone: The model.
        contents: The contents of the batch.
        size: The number of contents in a chunk, at least 1.

    Returns:
        (contents, width), float32, of unit length: the vectors of `embed`, with the same gradients.

    Raises:
        DataError: A content is too long, or its image cannot be decoded.

    Source:
        Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", arXiv 2101.06983.
    """
    chunks = [contents[start : start + size] for start in range(0, len(contents), size)]
    chunks += [contents[:1]] * (backbone.passes(len(chunks)) - len(chunks))
    seeds = torch.randint(2**63 - 1, (len(chunks),)).tolist()
    vectors = [
        checkpoint(
            _embed_seeded, backbone, chunk, seed, use_reentrant=False, preserve_rng_state=False
        )
        for chunk, seed in zip(chunks, seeds, strict=True)
    ]
    return torch.cat(vectors)[: len(contents)]


def _embed_seeded(backbone: Backbone, chunk: Sequence[Content], seed: int) -> Tensor:
    """Embeds a chunk with the same random numbers in the forward and the backward pass.

    `checkpoint` alone restores the random state of a GPU only if an argument is a tensor on that GPU.
    """
    torch.manual_seed(seed)
    return embed(backbone, chunk)
