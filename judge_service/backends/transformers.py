"""The exact reference: a Qwen2-VL or Qwen2.5-VL in transformers, on one device.

A query's prefix runs once; its candidates' suffixes run in batches on copies of the prefix' key-value cache. Equal to
one pair at a time within 1e-4 in log-odds in float32 (a test holds it to that).

Letters: B candidates · S longest suffix · D width · V vocabulary.
"""

import asyncio
import copy
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor

from judge_service.rendering import Renderer
from judge_service.settings import ModelSettings
from unijudge.corpus import Content
from unijudge.encoding import Stream, expand, picture_arrays, shared_prefix, token_arrays
from unijudge.errors import BadImage, JudgeRefused, ModelError
from unijudge.files import folder_sha256
from unijudge.pictures import PictureReader
from unijudge.prompt import Prompt
from unijudge.verdicts import JudgeIdentity, PairError, Verdict

FAMILIES = ("qwen2_vl", "qwen2_5_vl")


class TransformersJudge:
    """Judges with transformers. One request at a time runs on the device; the others wait."""

    def __init__(self, settings: ModelSettings, prompt: Prompt, max_source_pixels: int):
        """Loads the model.

        Raises:
            ModelError: It cannot be loaded, is of another family, or its tokenizer cannot answer Yes or No.
        """
        self._settings = settings
        self._device = _device(settings.device)
        try:
            config = transformers.AutoConfig.from_pretrained(settings.name, revision=settings.revision)
            if config.model_type not in FAMILIES:
                raise ModelError(f"{settings.name}: is a {config.model_type}; this backend judges with {FAMILIES}")
            tokenizer = transformers.AutoTokenizer.from_pretrained(settings.name, revision=settings.revision)
            processor = transformers.AutoImageProcessor.from_pretrained(
                settings.name,
                revision=settings.revision,
                backend="pil",  # the one implementation that is the same with and without torchvision
            )
            self._model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                settings.name,
                revision=settings.revision,
                dtype=getattr(torch, settings.dtype),
                attn_implementation="sdpa",
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{settings.name}: cannot be loaded as a judge ({error})") from error
        self._model.eval().to(self._device)
        self._image_id: int = config.image_token_id
        self._pad_id: int = tokenizer.pad_token_id
        self._renderer = Renderer(tokenizer, tokenizer.convert_ids_to_tokens(self._image_id), prompt)
        self._processor = processor
        self._pictures = PictureReader(
            token_side=processor.patch_size * processor.merge_size,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            max_source_pixels=max_source_pixels,
        )
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge")
        folder = Path(settings.name)
        self._identity = JudgeIdentity(
            model=folder.name if folder.is_dir() else settings.name,
            weights=folder_sha256(folder) if folder.is_dir() else (config._commit_hash or "unknown"),  # noqa: SLF001
            prompt_fingerprint=prompt.fingerprint,
            yes=prompt.yes,
            no=prompt.no,
            yes_id=self._renderer.yes_id,
            no_id=self._renderer.no_id,
            order=prompt.order,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            dtype=settings.dtype,
            backend="transformers",
            backend_version=transformers.__version__,
        )

    @property
    def identity(self) -> JudgeIdentity:
        """Who answers."""
        return self._identity

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order.

        Raises:
            JudgeRefused: The query's own image cannot be decoded.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._judge, query, list(candidates))

    def _judge(self, query: Content, candidates: list[Content]) -> list[Verdict | PairError]:
        try:
            if query.image is not None:
                self._pictures(query.image)
        except BadImage as error:
            raise JudgeRefused(f"query: {error}") from error
        answers: list[Verdict | PairError | None] = [None] * len(candidates)
        streams: dict[int, Stream] = {}
        for index, stream in enumerate(self._renderer.streams(query, candidates)):
            try:
                length = len(expand(stream, self._pictures, self._image_id))
            except BadImage as error:
                answers[index] = PairError(code="bad_image", message=str(error))
                continue
            if length > self._settings.max_tokens:
                message = (
                    f"{length} tokens; this judge takes {self._settings.max_tokens}: shorten the text or the image"
                )
                answers[index] = PairError(code="too_long", message=message)
                continue
            streams[index] = stream
        if streams:
            for index, verdict in zip(streams, self._score(list(streams.values())), strict=True):
                answers[index] = verdict
        return [answer for answer in answers if answer is not None]

    @torch.inference_mode()
    def _score(self, streams: list[Stream]) -> Iterator[Verdict | PairError]:
        cut = shared_prefix(streams) if len(streams) > 1 else 0
        try:
            cache = self._prefix_cache(streams[0][:cut]) if cut else None
            for chunk in self._chunks(streams):
                yield from map(_answer, self._logprobs_B2(chunk, cut, cache).tolist())
        except torch.OutOfMemoryError as error:
            raise JudgeRefused(f"out of memory on {len(streams)} pairs; lower model.batch_tokens ({error})") from error

    def _chunks(self, streams: list[Stream]) -> Iterator[list[Stream]]:
        """Cuts the candidates, in order, so that no batch exceeds `batch_tokens` (a single pair always fits)."""
        chunk: list[Stream] = []
        longest = 0
        for stream in streams:
            longest = max(longest, len(expand(stream, self._pictures, self._image_id)))
            if chunk and longest * (len(chunk) + 1) > self._settings.batch_tokens:
                yield chunk
                chunk, longest = [], len(expand(stream, self._pictures, self._image_id))
            chunk.append(stream)
        yield chunk

    def _prefix_cache(self, prefix: Stream) -> transformers.DynamicCache:
        cache = transformers.DynamicCache(config=self._model.config.get_text_config())
        self._forward([prefix], 0, cache)
        return cache

    def _logprobs_B2(self, streams: list[Stream], cut: int, cache: Any) -> Tensor:
        """Ln P(Yes), ln P(No) of each stream, whose first `cut` entries are already in `cache`."""
        if cache is not None:
            cache = copy.deepcopy(cache)
            cache.batch_repeat_interleave(len(streams))
        hidden_BD = self._forward(streams, cut, cache)
        logits_BV = self._model.lm_head(hidden_BD)
        return logits_BV.float().log_softmax(-1)[:, [self._renderer.yes_id, self._renderer.no_id]]

    def _forward(self, streams: list[Stream], cut: int, cache: Any) -> Tensor:
        """The last hidden state of each stream, (B, width). What stands before `cut` comes from the cache."""
        suffixes = [stream[cut:] for stream in streams]
        whole, new = self._arrays(streams), self._arrays(suffixes)
        num_cached = whole["input_ids"].shape[1] - new["input_ids"].shape[1]
        new |= {  # a suffix attends to its prefix, and counts its positions on from there
            "attention_mask": whole["attention_mask"],
            "position_ids": whole["position_ids"][..., num_cached:],
        }
        for name, array in picture_arrays(suffixes, self._pictures, self._processor).items():
            new[name] = torch.from_numpy(array).to(self._device)
        hidden_BSD = self._model.model(**new, past_key_values=cache, use_cache=cache is not None).last_hidden_state
        last_B = whole["attention_mask"].sum(1) - 1 - num_cached
        return hidden_BSD[torch.arange(len(streams)), last_B]

    def _arrays(self, streams: list[Stream]) -> dict[str, Tensor]:
        batch = token_arrays(streams, self._pictures, image_id=self._image_id, pad_id=self._pad_id)
        return {name: torch.from_numpy(array).to(self._device) for name, array in batch.items()}


def _answer(logprobs: list[float]) -> Verdict | PairError:
    yes, no = logprobs
    if not (math.isfinite(yes) and math.isfinite(no)):
        return PairError(code="not_finite", message=f"ln P(Yes) = {yes}, ln P(No) = {no}; take a wider model.dtype")
    return Verdict(yes_logprob=yes, no_logprob=no)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "model.device: cuda, but this process sees no GPU; set gpus_per_replica = 1, or device = 'cpu'"
        )
    return torch.device(wanted)
