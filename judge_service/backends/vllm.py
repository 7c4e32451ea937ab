"""vLLM as the engine: continuous batching, prefix caching, one token. With `vllm_engines` the only file that names it.

Yes and No, or the numbers of a list, are read by their ids, as log-probabilities over the whole vocabulary; sampling
parameters are neutral, and the model's own generation_config is never asked. Pictures come scaled, tokens come ready;
how many tokens vLLM made of them is compared with ours, prompt by prompt.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from judge_service.backends.engine_log import explained, new_log, printing_to
from judge_service.backends.engine_options import engine_plan
from judge_service.backends.model_sizes import sizes_of
from judge_service.backends.preflight import check_engine
from judge_service.backends.rendering import Inputs, answer, choice
from judge_service.backends.vllm_engines import AsyncEngine, Engine, InProcessEngine, InvalidPrompt
from judge_service.gpus import Gpu, has_cuda_vllm
from judge_service.settings import ServiceSettings
from unijudge.content import Content
from unijudge.errors import JudgeDied, JudgeUnavailable, ModelError, first_error
from unijudge.judging.verdicts import JudgeIdentity, ListVerdict, PairError, Verdict
from unijudge.modeling.chat_encoder import Stream
from unijudge.storage.access_errors import in_one_line

logger = logging.getLogger(__name__)

Prompt = tuple[dict[str, Any], int]
"""A stream as vLLM takes it, and its length in tokens."""


class VllmJudge:
    """Judges with vLLM. All candidates of a query are in work at once; siblings share the query's cache blocks."""

    def __init__(self, inputs: Inputs, settings: ServiceSettings, gpu: Gpu | None):
        """Starts the engine.

        Args:
            inputs: What makes its prompts.
            settings: Of the service.
            gpu: The GPU to run on; None for a CPU.

        Raises:
            ModelError: vLLM is not installed, or cannot run this model here; the message has the cause and its cure.
        """
        if gpu is None and has_cuda_vllm():
            raise ModelError(
                "vLLM is a CUDA build, and this process has no GPU. Set gpus_per_replica = 1; without a GPU install "
                "the extra judge-cpu, or set model.backend = 'transformers'"
            )
        sizes = sizes_of(inputs.model.config)
        if gpu is not None:
            check_engine(settings, sizes, gpu)
        plan = engine_plan(settings, sizes, gpu)
        if "://" in os.environ.get("VLLM_PORT", ""):  # Kubernetes' word on a service called vllm, and no port of vLLM's
            del os.environ["VLLM_PORT"]
        for name, value in plan.environment.items():
            os.environ.setdefault(name, value)
        os.environ.update(plan.precision)
        try:
            import vllm
        except ModuleNotFoundError as error:
            raise ModelError(
                f"vLLM is not installed, or without {error.name}; install the extra judge or judge-cpu, or set "
                "model.backend = 'transformers'"
            ) from error
        except (ImportError, OSError) as error:  # a library of the system, or of another version, as libcudart.so.13
            raise ModelError(
                f"vLLM is installed, and cannot be imported ({in_one_line(error)}). Install it again with the extra "
                "judge or judge-cpu, or set model.backend = 'transformers'"
            ) from error
        if plan.memory is not None:
            logger.info("%s: %s", settings.model.name, plan.memory)
        self._inputs = inputs
        self._labels = (inputs.renderer.yes_id, inputs.renderer.no_id)
        self._parameters = partial(
            vllm.SamplingParams,
            max_tokens=1,
            temperature=0.0,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            repetition_penalty=1.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            detokenize=False,
        )
        options = plan.options | {"mm_processor_kwargs": dict(inputs.model.family.engine_options)}
        self._engine = _started(plan.own_process, options, new_log(settings.log_folder))
        self._progressed_at = float("-inf")
        self._identity = inputs.identity("vllm", vllm.__version__)
        self.prompt_tokens = self.cached_tokens = 0
        """Of all pairs so far; the second: how many of the first came from the prefix cache."""

    @property
    def identity(self) -> JudgeIdentity:
        """Who answers."""
        return self._identity

    @property
    def inputs(self) -> Inputs:
        """What turns pairs into its prompts."""
        return self._inputs

    @property
    def progressed_at(self) -> float:
        """The `time.monotonic()` of the last pair or list that the engine answered, for whomever."""
        return self._progressed_at

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded.
            JudgeDied: The engine died while it worked on this.
            JudgeUnavailable: It had died before.
        """
        answers, prompts = await asyncio.to_thread(self._prepare, query, candidates)
        was_dead = self._engine.is_dead
        try:
            async with asyncio.TaskGroup() as pairs:
                tasks = {place: pairs.create_task(self._score(prompt)) for place, prompt in prompts.items()}
        except* JudgeUnavailable as failures:
            # A pair that is asked after the death may tell of it before one that was in the engine.
            kind = JudgeDied if self._engine.is_dead and not was_dead else JudgeUnavailable
            raise kind(str(first_error(failures))) from failures
        for place, task in tasks.items():
            answers[place] = task.result()
        return [found for found in answers if found is not None]

    async def choose(self, query: Content, candidates: Sequence[Content]) -> ListVerdict | PairError:
        """Which of the candidates is the best, or why this list cannot be asked about.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded, or this model cannot answer listwise.
            JudgeDied: The engine died while it worked on this.
            JudgeUnavailable: It had died before.
        """
        stream = await asyncio.to_thread(self._inputs.prepare_list, query, candidates)
        if isinstance(stream, PairError):
            return stream
        numbers = self._inputs.lists.number_ids[: len(candidates)]
        found = await self._read(await asyncio.to_thread(self._prompt, stream), numbers)
        if isinstance(found, PairError):
            return found
        logprobs, likeliest = found
        return choice(logprobs, argmax_is_number=likeliest in numbers)

    def _prepare(
        self, query: Content, candidates: Sequence[Content]
    ) -> tuple[list[Verdict | PairError | None], dict[int, Prompt]]:
        """As `Inputs.prepare`, each stream as vLLM takes it."""
        answers, streams = self._inputs.prepare(query, candidates)
        return answers, {place: self._prompt(stream) for place, stream in streams.items()}

    def _prompt(self, stream: Stream) -> Prompt:
        model = self._inputs.model
        prompt: dict[str, Any] = {"prompt_token_ids": model.placeholders(stream)}
        if pictures := [model.pictures(entry).image for entry in stream if isinstance(entry, bytes)]:
            prompt["multi_modal_data"] = {"image": pictures}
        return prompt, model.length(stream)

    async def _score(self, prompt: Prompt) -> Verdict | PairError:
        found = await self._read(prompt, self._labels)
        if isinstance(found, PairError):
            return found
        (yes, no), likeliest = found
        return answer(yes, no, argmax_is_label=likeliest in self._labels)

    async def _read(self, prompt: Prompt, ids: Sequence[int]) -> tuple[list[float], int] | PairError:
        """The log-probabilities of some tokens as the first of the answer, and the likeliest token of all."""
        inputs, expected = prompt
        try:
            output = await self._output(inputs, self._parameters(logprob_token_ids=list(ids)))
        except InvalidPrompt as refusal:
            return PairError(code="refused", message=str(refusal))
        self._progressed_at = time.monotonic()
        found = len(output.prompt_token_ids)
        if found != expected:
            message = f"the engine made {found} tokens of a prompt of {expected}; it scales pictures otherwise"
            return PairError(code="token_count", message=message)
        self.prompt_tokens += found
        self.cached_tokens += output.num_cached_tokens or 0
        (first,) = output.outputs[0].logprobs
        return [first[token].logprob for token in ids], output.outputs[0].token_ids[0]

    async def _output(self, prompt: dict[str, Any], parameters: Any) -> Any:
        """The engine's output with its log-probabilities. Where they are missing, the engine is asked once more.

        Raises:
            InvalidPrompt: They are missing again.
            JudgeDied: The engine died while it worked on this.
            JudgeUnavailable: It had died before, or gave up what it was asked.
        """
        for again in (False, True):
            output = await self._engine.generate(prompt, parameters, again=again)
            if _has_logprobs(output):
                return output
        reason = output.outputs[0].finish_reason if output is not None and output.outputs else None
        if reason != "error":
            raise JudgeUnavailable(f"the engine gave up a prompt twice (finish reason {reason}); ask again")
        raise InvalidPrompt("the engine failed on this prompt twice (finish reason error); its log has the cause")


def _has_logprobs(output: Any) -> bool:
    """Whether the output holds the log-probabilities of a first token."""
    return output is not None and bool(output.outputs) and bool(output.outputs[0].logprobs)


def _started(own_process: bool, options: dict[str, Any], log: Path) -> Engine:
    """The engine, ready. What it prints goes to the log.

    Raises:
        ModelError: It does not start.
    """
    try:
        with printing_to(log):
            return AsyncEngine(options, log) if own_process else InProcessEngine(options)
    except Exception as error:  # engines are many libraries, each with errors of its own
        raise ModelError(f"{options['model']}: vLLM cannot run it here: {explained(error, log)}") from error
