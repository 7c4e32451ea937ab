"""Splits the frozen weights of a model among the processes (FSDP2), for models that leave no room beside them.

Each block's weights are gathered while it computes, and let go again. The adapter is small: it stays whole in every
process, so training, saving and resuming are what they are without sharding.
"""

from typing import Any

from unijudge.errors import ModelError


def shard_frozen(model: Any) -> None:
    """Splits the blocks of each tower of a model with an adapter; embeddings and norms stay whole.

    Raises:
        ModelError: The model does not say what its blocks are, or its weights are quantised.
    """
    from torch.distributed.fsdp import fully_shard

    inner = model.get_base_model().model
    adapter = {parameter for parameter in model.parameters() if parameter.requires_grad}
    names = set(inner._no_split_modules or ())  # noqa: SLF001  the models' own word for it
    towers = {tower: [one for one in tower.modules() if type(one).__name__ in names] for tower in inner.children()}
    if not any(towers.values()):
        raise ModelError(f"{type(inner).__name__}: does not say what its blocks are; train it without FSDP")
    for tower, blocks in towers.items():
        inside = {parameter for block in blocks for parameter in block.parameters()}
        if not all(parameter.is_floating_point() for parameter in inside):
            raise ModelError("quantised weights cannot be split among processes; set dtype = 'bfloat16', or use DDP")
        for block in blocks:
            fully_shard(block, ignored_params=adapter)
        if blocks:
            fully_shard(tower, ignored_params=adapter | (set(tower.parameters()) - inside))
