"""Splits the frozen language model among the processes (FSDP2), for models that fill most of a GPU's memory.

The weights of a block are gathered while the block computes, and freed afterwards. The adapter is small, so every
process keeps the whole adapter. Training, saving and resuming therefore work as without sharding. Every process also
keeps the whole vision tower and runs it on each image that is new to the process.

This module does not load a model in parts. Each process loads the whole model before the split, so a model must fit
into one GPU. The split frees the memory of the weights for hidden states.
"""

import torch
import torch.distributed as dist

from trainer.models.backbone import Backbone
from unijudge.errors import ModelError


def shard_frozen(backbone: Backbone) -> None:
    """Splits the blocks of the language model, but not the adapter.

    Every pass gathers weights from all processes, so from now on all processes run the same number of passes.

    Raises:
        ModelError: The weights are quantised.
    """
    from torch.distributed.fsdp import fully_shard

    language_model = backbone.language_model
    inside = {parameter for block in language_model.layers for parameter in block.parameters()}
    if not all(parameter.is_floating_point() for parameter in inside):
        raise ModelError(
            "quantised weights cannot be split among processes. Set dtype = 'bfloat16', or use DDP"
        )
    adapter = {parameter for parameter in inside if parameter.requires_grad}
    for block in language_model.layers:
        fully_shard(block, ignored_params=adapter)
    fully_shard(
        language_model, ignored_params=adapter | (set(language_model.parameters()) - inside)
    )

    def max_over_ranks(passes: int) -> int:
        count = torch.tensor(passes, device=backbone.device)
        dist.all_reduce(count, dist.ReduceOp.MAX)
        return int(count)

    backbone.passes = max_over_ranks
