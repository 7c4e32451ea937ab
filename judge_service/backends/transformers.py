"""The exact reference: any family of `unijudge.modeling.families` in transformers, on one device.

The shared prefix of a query's prompts runs once. The suffixes of the candidates run in batches on copies of the
prefix's key-value cache. In float32 the log-odds differ by at most 1e-4 from the log-odds of single pairs. A test
checks this.

A picture passes through the vision tower alone, and its features are kept for later queries.

If a caller leaves, its request never starts, or stops before the next chunk.

Letters: B candidates · S longest suffix · D width · V vocabulary.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from judge_service.backends.one_thread import Caller, OneThread
from judge_service.backends.rendering import Inputs, answer, choice
from unijudge.content import Content
from unijudge.errors import JudgeRefused, ModelError, OutOfMemory
from unijudge.judging.verdicts import FREE, Cost, JudgeIdentity, ListVerdict, PairError, Verdict
from unijudge.memory import one_memory_error
from unijudge.modeling.chat_encoder import Stream
from unijudge.modeling.families import Arrays
from unijudge.modeling.model_source import NO_CODE
from unijudge.modeling.vision_cache import Vision, embedded
from unijudge.storage.access_errors import in_one_line


class TransformersJudge:
    """Judges with transformers. One request at a time runs on the device. The other requests wait."""

    def __init__(self, inputs: Inputs, device: str):
        """Loads the weights.

        Args:
            inputs: The converter from pairs to prompts.
            device: The device of the model: `cpu` or `cuda`.

        Raises:
            ModelError: The weights cannot be loaded.
        """
        self._inputs = inputs
        self._labels = [inputs.renderer.yes_id, inputs.renderer.no_id]
        settings = inputs.settings
        self._device = torch.device(device)

        # By default the convolution of the vision tower rounds factors to the ten bits of TF32 on a GPU.
        if settings.dtype == "float32":
            torch.backends.cudnn.allow_tf32 = False

        try:
            with one_memory_error():
                self._model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                    settings.name,
                    revision=settings.revision,
                    config=inputs.model.config,
                    dtype=getattr(torch, settings.dtype),
                    attn_implementation="sdpa",
                    **NO_CODE,
                )
                self._model.requires_grad_(requires_grad=False)
                self._model.eval().to(self._device)
        except OutOfMemory as error:
            raise ModelError(
                f"{settings.name}: the weights in {settings.dtype} do not fit the GPU ({error}). Set "
                "model.dtype = 'bfloat16', choose a smaller model, or set model.device = 'cpu'"
            ) from error
        except Exception as error:  # damaged files cause many kinds of errors
            raise ModelError(
                f"{settings.name}: cannot be loaded as a judge ({in_one_line(error)})"
            ) from error

        self._vision = Vision(inputs.model, keep_bytes=settings.vision_cache_mb * 2**20)
        self._thread = OneThread("judge")
        self._progressed_at = float("-inf")
        self._identity = inputs.identity("transformers", transformers.__version__)

    @property
    def identity(self) -> JudgeIdentity:
        """The identity of the judge."""
        return self._identity

    @property
    def inputs(self) -> Inputs:
        """The converter from pairs to prompts."""
        return self._inputs

    @property
    def progressed_at(self) -> float:
        """The `time.monotonic()` of the last computed chunk, of any caller."""
        return self._progressed_at

    async def judge(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[Verdict | PairError]:
        """Returns one answer for each candidate, in order.

        Raises:
            JudgeRefused: The query is empty, its image cannot be decoded, or the query does not fit into memory.
        """
        return await self._thread.run(self._judge, query, list(candidates))

    async def choose(
        self, query: Content, candidates: Sequence[Content]
    ) -> ListVerdict | PairError:
        """Returns the best of the candidates, or the error of this list.

        Raises:
            JudgeRefused: The query is empty, its image cannot be decoded, the list does not fit into memory, or this
                model cannot answer listwise.
        """
        return await self._thread.run(self._choose, query, list(candidates))

    @torch.inference_mode()
    def _choose(
        self, caller: Caller, query: Content, candidates: list[Content]
    ) -> ListVerdict | PairError:
        stream = self._inputs.prepare_list(query, candidates)
        if isinstance(stream, PairError):
            return stream
        numbers = self._inputs.lists.number_ids[: len(candidates)]

        # The step on the device takes most of the time.
        caller.check_waits()
        encoded = self._vision.missing(_pictures([stream]))
        try:
            with one_memory_error():
                (logprobs_V,) = self._logprobs_BV([stream], 0, None)
        except OutOfMemory as error:
            raise JudgeRefused(
                f"a list of {len(candidates)} candidates: out of memory ({error}). List fewer candidates, or "
                "lower model.max_pixels"
            ) from error
        chosen = choice(
            logprobs_V[numbers].tolist(),
            argmax_is_number=int(logprobs_V.argmax()) in numbers,
            cost=self._cost(stream, 0, len(encoded)),
        )
        self._progressed_at = time.monotonic()
        return chosen

    def _judge(
        self, caller: Caller, query: Content, candidates: list[Content]
    ) -> list[Verdict | PairError]:
        answers, streams = self._inputs.prepare(query, candidates)
        if streams:
            for index, verdict in zip(
                streams, self._score(list(streams.values()), caller), strict=True
            ):
                answers[index] = verdict
        return [result for result in answers if result is not None]

    @torch.inference_mode()
    def _score(self, streams: list[Stream], caller: Caller) -> Iterator[Verdict | PairError]:
        cut = self._inputs.shared(streams)
        prefix = streams[0][:cut]
        caller.check_waits()
        encoded = self._vision.missing(_pictures([prefix]))
        try:
            with one_memory_error():
                cache = self._prefix_cache(prefix) if cut else None
        except OutOfMemory as error:
            raise JudgeRefused(f"query: {self._no_room(error)}") from error

        # The prefix was computed once. The first candidate bears its cost.
        shared = Cost(
            prompt_tokens=0,
            computed_tokens=self._inputs.model.length(prefix),
            images=0,
            images_encoded=len(encoded),
        )
        for chunk in self._chunks(streams):
            for result in self._score_chunk(chunk, cut, cache, caller):
                if isinstance(result, Verdict) and result.cost is not None:
                    yield result.model_copy(update={"cost": result.cost + shared})
                else:
                    yield result
                shared = FREE

    def _score_chunk(
        self, chunk: list[Stream], cut: int, cache: Any, caller: Caller
    ) -> Iterator[Verdict | PairError]:
        """Yields the answers of some candidates. If memory is short, splits the chunk in halves, down to one pair."""
        caller.check_waits()
        encoded = self._vision.missing(_pictures([stream[cut:] for stream in chunk]))
        try:
            with one_memory_error():
                logprobs_BV = self._logprobs_BV(chunk, cut, cache)
                most_probable = logprobs_BV.argmax(-1).tolist()
        except OutOfMemory as error:
            failure = self._no_room(error)
        else:
            self._progressed_at = time.monotonic()
            labels_B2 = logprobs_BV[:, self._labels].tolist()
            for stream, (yes, no), token in zip(chunk, labels_B2, most_probable, strict=True):
                # The first candidate with a picture bears the cost of its encoding.
                own = encoded.intersection(_pictures([stream[cut:]]))
                encoded -= own
                cost = self._cost(stream, cut, len(own))
                yield answer(yes, no, argmax_is_label=token in self._labels, cost=cost)
            return
        if len(chunk) == 1:
            yield PairError(code="out_of_memory", message=failure)
            return

        # This must be outside of the except block: the error keeps the tensors that did not fit in memory.
        half = len(chunk) // 2
        yield from self._score_chunk(chunk[:half], cut, cache, caller)
        yield from self._score_chunk(chunk[half:], cut, cache, caller)

    def _cost(self, stream: Stream, cut: int, encoded: int) -> Cost:
        """Returns the cost of an answer whose first `cut` entries were computed for all candidates of the query."""
        tokens = self._inputs.model.length(stream)
        return Cost(
            prompt_tokens=tokens,
            computed_tokens=tokens - self._inputs.model.length(stream[:cut]),
            images=len(_pictures([stream])),
            images_encoded=encoded,
        )

    def _no_room(self, error: OutOfMemory) -> str:
        budget = self._inputs.settings.max_pixels
        return (
            f"out of memory ({error}). Lower model.max_pixels (now {budget}), or shorten the text"
        )

    def _chunks(self, streams: list[Stream]) -> Iterator[list[Stream]]:
        """Splits the candidates, in order, into batches of at most `batch_tokens`. A single pair is always allowed."""
        chunk: list[Stream] = []
        longest = 0
        for stream in streams:
            length = self._inputs.model.length(stream)
            if (
                chunk
                and max(longest, length) * (len(chunk) + 1) > self._inputs.settings.batch_tokens
            ):
                yield chunk
                chunk, longest = [], 0
            chunk.append(stream)
            longest = max(longest, length)
        yield chunk

    def _prefix_cache(self, prefix: Stream) -> transformers.DynamicCache:
        cache = transformers.DynamicCache(config=self._model.config.get_text_config())
        self._forward([prefix], 0, cache)
        return cache

    def _logprobs_BV(self, streams: list[Stream], cut: int, cache: Any) -> Tensor:
        """Returns ln P of every token at the start of the answers. `cache` has the streams' first `cut` entries."""
        if cache is not None:
            cache = copy.deepcopy(cache)
            cache.batch_repeat_interleave(len(streams))
        hidden_BD = self._forward(streams, cut, cache)
        return self._logits_BV(hidden_BD).log_softmax(-1)

    def _logits_BV(self, hidden_BD: Tensor) -> Tensor:
        """Returns logits in float32. The product of the last layer has the dtype of `model.head_dtype`."""
        head = self._model.lm_head
        if self._inputs.settings.head_dtype == "model" or hidden_BD.dtype == torch.float32:
            return head(hidden_BD).float()
        # Sums of 16-bit factors in 32 bits, without a float32 copy of the weights.
        if hidden_BD.is_cuda:
            return torch.mm(hidden_BD, head.weight.t(), out_dtype=torch.float32)
        return torch.nn.functional.linear(hidden_BD.float(), head.weight.float())

    def _forward(self, streams: list[Stream], cut: int, cache: Any) -> Tensor:
        """Returns the last hidden state of each stream, (B, D). `cache` has the entries before `cut`."""
        suffixes = [stream[cut:] for stream in streams]
        whole = self._on_device(self._inputs.model.token_arrays(streams))
        new = self._on_device(self._inputs.model.token_arrays(suffixes))

        # A suffix attends to its prefix, and its positions continue after the prefix.
        num_cached = whole["input_ids"].shape[1] - new["input_ids"].shape[1]
        positions = whole["position_ids"][..., num_cached:]

        # The features of known pictures are in the vision cache.
        pictures = _pictures(suffixes)
        features = self._vision.features(self._model.model, dict.fromkeys(pictures))
        ids_BS = new["input_ids"]
        spots_BS = (ids_BS == self._inputs.model.family.image_id) & (new["attention_mask"] == 1)
        decoder = self._model.model.language_model
        seen = decoder(
            **embedded(decoder, ids_BS, spots_BS, [features[picture] for picture in pictures]),
            attention_mask=whole["attention_mask"],
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )

        # Shorter streams are padded at their end.
        lengths_B = whole["attention_mask"].sum(1)
        last_B = lengths_B - 1 - num_cached
        rows_B = torch.arange(len(streams))
        return seen.last_hidden_state[rows_B, last_B]

    def _on_device(self, arrays: Arrays) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}


def _pictures(streams: Sequence[Stream]) -> list[bytes]:
    """Returns the pictures of the streams in reading order."""
    return [entry for stream in streams for entry in stream if isinstance(entry, bytes)]
