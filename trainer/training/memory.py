"""An estimate of a training's GPU memory, measured on one block of the model before the training starts.

The estimate counts the adapter's optimizer, the tensors that the language model keeps for the backward pass, and the
logits of a reranker. The estimate does not count the passes of the vision tower, which end before the language model
starts, nor the gaps of the allocator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from trainer.models.backbone import Backbone
from trainer.models.out_of_memory import DeviceMemory, advice, gib
from unijudge.modeling.chat_encoder import Stream

SAMPLE_TOKENS = 4096
"""The number of tokens in the batch that measures a block. In a batch of this size, tensors whose size does not depend
on the number of tokens are too small to matter."""
LOGIT_COPIES = 4
"""The number of float32 tensors as large as the logits: the logits, their targets, their log-softmax and a gradient."""


@dataclass(frozen=True)
class BlockMemory:
    """The bytes per token that one block of the language model and the last norm keep for the backward pass."""

    everything: float
    """All tensors that the block saves, its input included. Weights and tensors that all blocks share do not count."""
    entry: float
    """The input of the block alone. Checkpointing keeps only this input."""
    norm: float
    """The tensors that the norm after the last block keeps. This norm is never computed again."""


@dataclass(frozen=True)
class TrainingMemory:
    """The memory that a training will need in addition to the weights, in bytes."""

    hidden: int
    """Bytes kept for the backward pass of the largest batch."""
    adapter: int
    """Bytes of the adapter's gradients and of AdamW's two moments."""
    logits: int
    """Bytes of the logits of a reranker's questions. 0 for an embedder."""
    tokens: int
    """Number of tokens in the largest batch, padding included."""
    batches: int
    """Number of batches from which the estimate was made."""

    @property
    def total(self) -> int:
        """The sum of hidden states, adapter and logits."""
        return self.hidden + self.adapter + self.logits


def block_memory(backbone: Backbone, streams: Sequence[Stream]) -> BlockMemory:
    """Runs the first block of the language model, with its adapter, and counts the bytes that autograd saves.

    Args:
        backbone: A model with a trainable adapter and with all weights on this device. The model is left in training
            mode.
        streams: The inputs of a batch. The first inputs, about `SAMPLE_TOKENS` tokens, are used.
    """
    backbone.model.train()
    block = backbone.language_model.layers[0]
    (entry, *rest), named = _largest_call(backbone, block, _first_tokens(backbone, streams))
    # Every block except the first has an input with a gradient.
    entry = entry.detach().requires_grad_()
    norm = backbone.language_model.norm
    apart = _storages([rest, list(named.values()), block.parameters(), norm.parameters()])
    with backbone.autocast():
        in_block = saved_bytes(lambda: block.forward(entry, *rest, **named), but=apart)
        in_norm = saved_bytes(lambda: norm(entry), but=apart)
    tokens = entry.shape[0] * entry.shape[1]
    return BlockMemory(
        everything=in_block / tokens, entry=entry.nbytes / tokens, norm=in_norm / tokens
    )


def saved_bytes(run: Callable[[], object], but: set[int]) -> int:
    """Returns how many bytes autograd saves during a call of `run`. Each storage counts once.

    Args:
        run: A function that computes with gradients. Its result is kept until all bytes are counted.
        but: Addresses of storages that do not count, such as weights.

    Example:
        >>> weight, given = torch.ones(3, 2), torch.ones(5, 2, requires_grad=True)
        >>> saved_bytes(lambda: (given * given) @ weight.T, but=set())  # each product saves what its gradient needs
        64
    """
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = (
            tensor  # kept alive, so that no other tensor gets this address
        )
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    counted = sum(
        tensor.untyped_storage().nbytes() for address, tensor in saved.items() if address not in but
    )
    del result
    return counted


def hidden_bytes(
    block: BlockMemory, blocks: int, passes: Sequence[int], *, checkpointing: bool
) -> int:
    """Returns the largest number of bytes that a batch keeps for its backward pass.

    Without checkpointing, every block keeps all its tensors. With checkpointing, every block keeps only its input, and
    the block that is computed again keeps all its tensors of one pass.

    Args:
        block: The memory that one block keeps.
        blocks: The number of blocks.
        passes: The number of tokens of each forward pass of the batch, padding included.
        checkpointing: Whether the backward pass computes blocks again.

    Example:
        >>> block = BlockMemory(everything=100.0, entry=8.0, norm=20.0)
        >>> hidden_bytes(block, 3, [10, 20], checkpointing=False)
        9600
        >>> hidden_bytes(block, 3, [10, 20], checkpointing=True)
        3320
    """
    in_norm = block.norm * sum(passes)
    if not checkpointing:
        return round(block.everything * blocks * sum(passes) + in_norm)
    again = block.everything * max(passes)
    return round(block.entry * blocks * sum(passes) + again + in_norm)


def training_memory(
    backbone: Backbone,
    batches: Sequence[Sequence[Sequence[Stream]]],
    *,
    checkpointing: bool,
    questions: bool,
) -> TrainingMemory:
    """Returns the estimate for the largest of some batches.

    Args:
        backbone: The model with its adapter, before FSDP splits its weights.
        batches: The inputs of each batch in groups that are kept at the same time: one group, or chunks (GradCache).
        checkpointing: Whether the backward pass computes blocks again.
        questions: Whether each input also has logits, as in a reranker.
    """
    together = [streams for batch in batches for streams in batch]
    block = block_memory(backbone, max(together, key=len))
    blocks = len(backbone.language_model.layers)
    sizes = [backbone.padded_tokens(streams) for streams in together]
    hidden = [hidden_bytes(block, blocks, passes, checkpointing=checkpointing) for passes in sizes]
    trained = [parameter for parameter in backbone.model.parameters() if parameter.requires_grad]
    vocabulary = backbone.inputs.config.get_text_config().vocab_size
    most_inputs = max(len(streams) for streams in together)
    return TrainingMemory(
        hidden=max(hidden),
        adapter=3 * sum(parameter.nbytes for parameter in trained),
        logits=LOGIT_COPIES * 4 * vocabulary * most_inputs if questions else 0,
        tokens=max(sum(passes) for passes in sizes),
        batches=len(batches),
    )


def will_not_fit(need: TrainingMemory, memory: DeviceMemory, cures: Sequence[str]) -> str | None:
    """Returns a warning of one line if the estimate is larger than the free memory. Otherwise returns None.

    Args:
        need: The estimate.
        memory: The memory of the GPU, measured after the weights were loaded.
        cures: The settings that reduce the need for memory.
    """
    if need.total <= memory.free:
        return None
    return (
        f"memory: this training will need about {gib(need.total)} in addition to its weights, but {memory.name} has "
        f"{gib(memory.free)} of {gib(memory.total)} left. Hidden states need {gib(need.hidden)} ({need.tokens:,} "
        f"tokens, in the largest of {need.batches} batches), the adapter {gib(need.adapter)}, the logits "
        f"{gib(need.logits)}. {advice(cures)}"
    )


def _first_tokens(backbone: Backbone, streams: Sequence[Stream]) -> list[Stream]:
    """Returns the first streams: at least one stream, and about `SAMPLE_TOKENS` tokens in total."""
    taken: list[Stream] = []
    tokens = 0
    for stream in streams:
        tokens += backbone.inputs.length(stream)
        if taken and tokens > SAMPLE_TOKENS:
            break
        taken.append(stream)
    return taken


def _largest_call(
    backbone: Backbone, block: Any, streams: Sequence[Stream]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a block in the largest forward pass over these streams."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = block.register_forward_pre_hook(
        lambda _, given, named: calls.append((given, named)), with_kwargs=True
    )
    try:
        with torch.no_grad():
            backbone.last_hidden(streams)
    finally:
        hook.remove()
    return max(calls, key=lambda call: int(call[0][0].numel()))


def _storages(values: Any) -> set[int]:
    """Returns the storage addresses of all tensors in nested lists and tuples."""
    if isinstance(values, Tensor):
        return {values.untyped_storage().data_ptr()}
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        return set()
    return set().union(*(_storages(value) for value in values))
