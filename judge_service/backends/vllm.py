"""The backend with vLLM: continuous batching, prefix caching, one token for each prompt.

Only this file, `vllm_engines` and `engine_arguments` use vLLM. The log-probabilities of Yes and No, or of the numbers
of a list, are read by token id and are relative to the whole vocabulary. Sampling parameters are neutral. The model's
generation_config is ignored. vLLM gets scaled pictures and finished tokens. For each prompt, the number of tokens in
vLLM is compared with ours.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from judge_service.backends.engine_arguments import argument_faults, score_arguments
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
from unijudge.judging.verdicts import Cost, JudgeIdentity, ListVerdict, PairError, Verdict
from unijudge.modeling.chat_encoder import Stream
from unijudge.storage.access_errors import in_one_line

logger = logging.getLogger(__name__)

Prompt = tuple[dict[str, Any], int]
"""A prompt for vLLM, and its length in tokens."""


class VllmJudge:
    """Judges with vLLM. All candidates of a query run at the same time and share the query's cache blocks."""

    def __init__(self, inputs: Inputs, settings: ServiceSettings, gpu: Gpu | None):
        """Starts the engine.

        Args:
            inputs: The converter from pairs to prompts.
            settings: The settings of the service.
            gpu: The GPU to run on. None for a CPU.

        Raises:
            ModelError: vLLM is not installed, or cannot run this model here. The message has the cause and its cure.
        """
        if gpu is None and has_cuda_vllm():
            raise ModelError(
                "vLLM is a CUDA build, and this process has no GPU. Set gpus_per_replica = 1. On a machine without a "
                "GPU, install the extra judge-cpu, or set model.backend = 'transformers'"
            )
        if faults := list(argument_faults(settings.engine)):
            raise ModelError("; ".join(faults))
        sizes = sizes_of(inputs.model.config)
        if gpu is not None:
            check_engine(settings, sizes, gpu)
        plan = engine_plan(settings, sizes, gpu)

        # For a service with the name vllm, Kubernetes sets VLLM_PORT to a URL. vLLM expects a number.
        if "://" in os.environ.get("VLLM_PORT", ""):
            del os.environ["VLLM_PORT"]

        # vLLM reads the environment when it is imported.
        for name, value in plan.environment.items():
            os.environ.setdefault(name, value)
        os.environ.update(plan.precision)
        try:
            import vllm
        except ModuleNotFoundError as error:
            raise ModelError(
                f"vLLM or its dependency {error.name} is not installed. Install the extra judge or judge-cpu, or set "
                "model.backend = 'transformers'"
            ) from error
        except (ImportError, OSError) as error:
            # A shared library is missing or has another version: libcudart.so.13.
            raise ModelError(
                f"vLLM is installed but cannot be imported ({in_one_line(error)}). Reinstall vLLM with the extra judge "
                "or judge-cpu, or set model.backend = 'transformers'"
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
        identity = inputs.identity("vllm", vllm.__version__)
        self._identity = identity.model_copy(update={"engine": score_arguments(settings.engine)})
        self.prompt_tokens = self.cached_tokens = 0
        """The number of prompt tokens of all pairs so far, and the number of these from the prefix cache."""

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
        """The `time.monotonic()` of the engine's last answer, to any caller."""
        return self._progressed_at

    async def judge(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[Verdict | PairError]:
        """Returns one answer for each candidate, in order.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded.
            JudgeDied: The engine died while it worked on this request.
            JudgeUnavailable: The engine had died before.
        """
        answers, prompts = await asyncio.to_thread(self._prepare, query, candidates)

        # All pairs run at the same time. If the engine dies, their errors arrive in any order.
        was_dead = self._engine.is_dead
        try:
            async with asyncio.TaskGroup() as pairs:
                tasks = {
                    index: pairs.create_task(self._score(prompt))
                    for index, prompt in prompts.items()
                }
        except* JudgeUnavailable as failures:
            kind = JudgeDied if self._engine.is_dead and not was_dead else JudgeUnavailable
            raise kind(str(first_error(failures))) from failures

        for index, task in tasks.items():
            answers[index] = task.result()
        return [result for result in answers if result is not None]

    async def choose(
        self, query: Content, candidates: Sequence[Content]
    ) -> ListVerdict | PairError:
        """Returns the best of the candidates, or the error of this list.

        Raises:
            JudgeRefused: The query is empty, its image cannot be decoded, or this model cannot answer listwise.
            JudgeDied: The engine died while it worked on this request.
            JudgeUnavailable: The engine had died before.
        """
        stream = await asyncio.to_thread(self._inputs.prepare_list, query, candidates)
        if isinstance(stream, PairError):
            return stream
        prompt = await asyncio.to_thread(self._prompt, stream)
        numbers = self._inputs.lists.number_ids[: len(candidates)]
        result = await self._read(prompt, numbers)
        if isinstance(result, PairError):
            return result
        logprobs, most_probable, cost = result
        return choice(logprobs, argmax_is_number=most_probable in numbers, cost=cost)

    def _prepare(
        self, query: Content, candidates: Sequence[Content]
    ) -> tuple[list[Verdict | PairError | None], dict[int, Prompt]]:
        """Returns the result of `Inputs.prepare`, with vLLM's prompts in the place of streams."""
        answers, streams = self._inputs.prepare(query, candidates)
        return answers, {index: self._prompt(stream) for index, stream in streams.items()}

    def _prompt(self, stream: Stream) -> Prompt:
        model = self._inputs.model
        prompt: dict[str, Any] = {"prompt_token_ids": model.placeholders(stream)}
        if pictures := [
            model.pictures(entry).image for entry in stream if isinstance(entry, bytes)
        ]:
            prompt["multi_modal_data"] = {"image": pictures}
        return prompt, model.length(stream)

    async def _score(self, prompt: Prompt) -> Verdict | PairError:
        result = await self._read(prompt, self._labels)
        if isinstance(result, PairError):
            return result
        (yes, no), most_probable, cost = result
        return answer(yes, no, argmax_is_label=most_probable in self._labels, cost=cost)

    async def _read(
        self, prompt: Prompt, ids: Sequence[int]
    ) -> tuple[list[float], int, Cost] | PairError:
        """Returns ln P of some tokens at the start of the answer, the most probable token, and the cost."""
        inputs, expected = prompt
        try:
            output = await self._output(inputs, self._parameters(logprob_token_ids=list(ids)))
        except InvalidPrompt as refusal:
            return PairError(code="refused", message=str(refusal))
        self._progressed_at = time.monotonic()

        # Another scale of the pictures would give other scores than the reference.
        tokens = len(output.prompt_token_ids)
        if tokens != expected:
            message = f"the engine made {tokens} tokens of a prompt of {expected}: the engine scales pictures otherwise"
            return PairError(code="token_count", message=message)

        cached = output.num_cached_tokens or 0
        self.prompt_tokens += tokens
        self.cached_tokens += cached
        cost = Cost(
            prompt_tokens=tokens,
            computed_tokens=tokens - cached,
            images=len(inputs.get("multi_modal_data", {}).get("image", [])),
        )
        (first,) = output.outputs[0].logprobs
        return [first[token].logprob for token in ids], output.outputs[0].token_ids[0], cost

    async def _output(self, prompt: dict[str, Any], parameters: Any) -> Any:
        """Returns the engine's output with its log-probabilities. If they are missing, the prompt is sent once more.

        Raises:
            InvalidPrompt: The engine failed on this prompt twice.
            JudgeDied: The engine died while it worked on this prompt.
            JudgeUnavailable: The engine had died before, or aborted the prompt twice.
        """
        for again in (False, True):
            output = await self._engine.generate(prompt, parameters, again=again)
            if _has_logprobs(output):
                return output
        reason = output.outputs[0].finish_reason if output is not None and output.outputs else None
        if reason != "error":
            raise JudgeUnavailable(
                f"the engine aborted a prompt twice (finish reason {reason}). Repeat the request"
            )
        raise InvalidPrompt(
            "the engine failed on this prompt twice (finish reason error). The log has the cause"
        )


def _has_logprobs(output: Any) -> bool:
    """Whether the output has the log-probabilities of a first token."""
    return output is not None and bool(output.outputs) and bool(output.outputs[0].logprobs)


def _started(own_process: bool, options: dict[str, Any], log: Path) -> Engine:
    """Starts the engine, and writes its output to the log.

    Raises:
        ModelError: The engine does not start.
    """
    try:
        with printing_to(log):
            return AsyncEngine(options, log) if own_process else InProcessEngine(options)
    except Exception as error:  # an engine uses many libraries, each with its own errors
        raise ModelError(
            f"{options['model']}: vLLM cannot run this model here: {explained(error, log)}"
        ) from error
