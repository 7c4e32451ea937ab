"""What a training will need of a GPU's memory, measured on one block of its own model before it starts.

Counted are the adapter's optimizer, what the language model keeps for the backward pass, and a reranker's logits.
Not counted are the vision tower's passes, which end before the language model's begin, and the allocator's gaps.
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
"""Of the batch that a block is measured with: enough that what does not grow with them is too small to matter."""
LOGIT_COPIES = 4
"""Of a question's logits in float32: themselves, their targets, their log-softmax and a gradient."""


@dataclass(frozen=True)
class BlockMemory:
    """What one block of the language model, and the last norm, keep for the backward pass, in bytes a token."""

    everything: float
    """All that its operations save, its input among them; without weights, and without what all blocks share."""
    entry: float
    """Its input alone, which is what checkpointing keeps."""
    norm: float
    """What the norm after the last block keeps, which is never computed again."""


@dataclass(frozen=True)
class TrainingMemory:
    """What a training will take beside the weights, in bytes."""

    hidden: int
    """Kept for the backward pass, for the largest batch."""
    adapter: int
    """Gradients, and AdamW's two moments."""
    logits: int
    tokens: int
    """Of the largest batch, padding included."""
    batches: int
    """The number of batches behind the estimate."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.hidden + self.adapter + self.logits


def block_memory(backbone: Backbone, streams: Sequence[Stream]) -> BlockMemory:
    """Runs the first block of the language model, with its adapter, and counts what autograd saves.

    Args:
        backbone: With a trainable adapter, and weights that are whole on this device; left in training mode.
        streams: Inputs of a batch; as many as make up `SAMPLE_TOKENS` are used.
    """
    backbone.model.train()
    block = backbone.language_model.layers[0]
    (entry, *rest), named = _largest_call(backbone, block, _first_tokens(backbone, streams))
    entry = entry.detach().requires_grad_()  # as that of every block but the first
    norm = backbone.language_model.norm
    apart = _storages([rest, list(named.values()), block.parameters(), norm.parameters()])
    with backbone.autocast():
        in_block = saved_bytes(lambda: block.forward(entry, *rest, **named), but=apart)
        in_norm = saved_bytes(lambda: norm(entry), but=apart)
    tokens = entry.shape[0] * entry.shape[1]
    return BlockMemory(everything=in_block / tokens, entry=entry.nbytes / tokens, norm=in_norm / tokens)


def saved_bytes(run: Callable[[], object], but: set[int]) -> int:
    """How many bytes autograd saves while `run` runs, each storage once.

    Args:
        run: Computes with gradients; what it returns is kept until all is counted.
        but: Addresses of storages that do not count, such as weights.

    Example:
        >>> weight, given = torch.ones(3, 2), torch.ones(5, 2, requires_grad=True)
        >>> saved_bytes(lambda: (given * given) @ weight.T, but=set())  # of each product what its gradient needs
        64
    """
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other takes its address
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    counted = sum(tensor.untyped_storage().nbytes() for address, tensor in saved.items() if address not in but)
    del result
    return counted


def hidden_bytes(block: BlockMemory, blocks: int, passes: Sequence[int], *, checkpointing: bool) -> int:
    """What a batch keeps until its backward pass has used it, at the most.

    Without checkpointing all blocks keep everything; with it each keeps its entry, and one at a time everything, of one
    pass, when that is computed again.

    Args:
        block: What one block keeps.
        blocks: How many there are.
        passes: The tokens of each forward pass of the batch, padding included.
        checkpointing: Whether blocks are computed again.

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
    backbone: Backbone, batches: Sequence[Sequence[Sequence[Stream]]], *, checkpointing: bool, questions: bool
) -> TrainingMemory:
    """The estimate, for the largest of some batches.

    Args:
        backbone: With its adapter, before its weights are split.
        batches: Of each batch the inputs that are kept at the same time: all of them, or a chunk (GradCache).
        checkpointing: Whether blocks are computed again in the backward pass.
        questions: Whether each input also has logits, as a reranker's.
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
    """One line if the estimate is more than what is free; None if it is not.

    Args:
        need: The estimate.
        memory: Of the GPU, with the weights on it.
        cures: What helps.
    """
    if need.total <= memory.free:
        return None
    return (
        f"memory: this training will need about {gib(need.total)} beside its weights, and {memory.name} has "
        f"{gib(memory.free)} of {gib(memory.total)} left: hidden states {gib(need.hidden)} ({need.tokens:,} tokens, in "
        f"the largest of {need.batches} batches), adapter {gib(need.adapter)}, logits {gib(need.logits)}. "
        f"{advice(cures)}"
    )


def _first_tokens(backbone: Backbone, streams: Sequence[Stream]) -> list[Stream]:
    """The first of these streams, about `SAMPLE_TOKENS` in all, and at least one."""
    taken: list[Stream] = []
    tokens = 0
    for stream in streams:
        tokens += backbone.inputs.length(stream)
        if taken and tokens > SAMPLE_TOKENS:
            break
        taken.append(stream)
    return taken


def _largest_call(backbone: Backbone, block: Any, streams: Sequence[Stream]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a block is given in the largest of the passes that these streams make."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = block.register_forward_pre_hook(lambda _, given, named: calls.append((given, named)), with_kwargs=True)
    try:
        with torch.no_grad():
            backbone.last_hidden(streams)
    finally:
        hook.remove()
    return max(calls, key=lambda call: int(call[0][0].numel()))


def _storages(values: Any) -> set[int]:
    """The addresses of all tensors in nested lists and tuples."""
    if isinstance(values, Tensor):
        return {values.untyped_storage().data_ptr()}
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        return set()
    return set().union(*(_storages(value) for value in values))
