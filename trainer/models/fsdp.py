"""Splits the frozen language model among the processes (FSDP2), for models that leave no room beside them.

Each block's weights are gathered while it computes, and let go again. The adapter is small: it stays whole in every
process, so training, saving and resuming are what they are without sharding. So does the vision tower, which is run by
each process when it meets a picture that is new to it.

What it does not do: load a model in parts. Each process has loaded the whole model before it is split, so a model must
fit one GPU; what is saved is the room that its weights would take while hidden states are kept.
"""

import torch
import torch.distributed as dist

from trainer.models.backbone import Backbone
from unijudge.errors import ModelError


def shard_frozen(backbone: Backbone) -> None:
    """Splits the blocks of the language model under an adapter.

    Since every pass gathers weights from all processes, all make the same number of them from now on.

    Raises:
        ModelError: The weights are quantised.
    """
    from torch.distributed.fsdp import fully_shard

    language_model = backbone.language_model
    inside = {parameter for block in language_model.layers for parameter in block.parameters()}
    if not all(parameter.is_floating_point() for parameter in inside):
        raise ModelError("quantised weights cannot be split among processes; set dtype = 'bfloat16', or use DDP")
    adapter = {parameter for parameter in inside if parameter.requires_grad}
    for block in language_model.layers:
        fully_shard(block, ignored_params=adapter)
    fully_shard(language_model, ignored_params=adapter | (set(language_model.parameters()) - inside))

    def max_over_ranks(passes: int) -> int:
        count = torch.tensor(passes, device=backbone.device)
        dist.all_reduce(count, dist.ReduceOp.MAX)
        return int(count)

    backbone.passes = max_over_ranks
