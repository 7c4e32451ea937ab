"""vLLM as the engine: continuous batching, prefix caching, one token. The only file that names vllm.

Yes and No are read by their ids, as log-probabilities over the whole vocabulary; sampling parameters are neutral, and
the model's own generation_config is never asked. Pictures come scaled, tokens come ready; how many tokens vLLM made of
them is compared with ours, pair by pair.

On a GPU vLLM's asynchronous engine runs in processes of its own; on a CPU the engine runs inside this process, stepped
by a thread: a third of the memory, a tenth of the start.
"""

import asyncio
import contextlib
import os
import queue
import threading
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from judge_service.rendering import Inputs, answer
from unijudge.corpus import Content
from unijudge.errors import JudgeUnavailable, ModelError
from unijudge.verdicts import JudgeIdentity, PairError, Verdict

CPU_ENVIRONMENT = {
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
CPU_BLOCK_SIZE = 32
"""Tokens in a cache block: CPU attention wants a multiple of 32, and the default of 128 would hide short prefixes."""


class _PairRefused(Exception):
    """The engine does not take this prompt; the others are none the worse for it."""


class Engine(Protocol):
    """What runs one prompt to its first token."""

    async def generate(self, prompt: dict[str, Any], parameters: Any) -> Any:
        """The finished output."""
        ...


class VllmJudge:
    """Judges with vLLM. All candidates of a query are in work at once; siblings share the query's cache blocks."""

    def __init__(self, inputs: Inputs, tensor_parallel_size: int):
        """Starts the engine.

        Raises:
            ModelError: vLLM is not installed, or cannot run this model here.
        """
        import torch

        on_cpu = not torch.cuda.is_available()
        if inputs.settings.device not in ("auto", "cpu" if on_cpu else "cuda"):
            raise ModelError(
                f"model.device: {inputs.settings.device}, but vLLM would run on {'a CPU' if on_cpu else 'the GPU'} "
                "here: set gpus_per_replica to give a replica its GPU, or backend = 'transformers' to leave it alone"
            )
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        if on_cpu:
            for name, value in CPU_ENVIRONMENT.items():
                os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise ModelError("vLLM is not installed; install the extra judge or judge-cpu, or set backend") from error
        settings, renderer = inputs.settings, inputs.renderer
        self._inputs = inputs
        self._labels = (renderer.yes_id, renderer.no_id)
        self._parameters = vllm.SamplingParams(
            max_tokens=1,
            temperature=0.0,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            repetition_penalty=1.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            logprob_token_ids=list(self._labels),
            detokenize=False,
        )
        options = {
            "model": settings.name,
            "revision": settings.revision,
            "dtype": settings.dtype,
            "max_model_len": settings.max_tokens + 1,
            "max_num_seqs": settings.max_sequences,
            "tensor_parallel_size": tensor_parallel_size,
            # A replica's GPUs are on its machine: vLLM would otherwise look for places of its own in the cluster.
            "distributed_executor_backend": "mp" if tensor_parallel_size > 1 else None,
            "generation_config": "vllm",
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": 2, "video": 0},
            "mm_processor_kwargs": dict(inputs.model.family.engine_options),
            "disable_log_stats": True,
            "seed": 0,
        }
        try:
            self._engine: Engine = (
                _InProcessEngine(options | {"block_size": CPU_BLOCK_SIZE, "enforce_eager": True})
                if on_cpu
                else _AsyncEngine(options)
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{settings.name}: vLLM cannot run it here ({error})") from error
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

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order.

        Raises:
            JudgeRefused: The query's own image cannot be decoded.
            JudgeUnavailable: The engine has died.
        """
        answers, prompts = await asyncio.to_thread(self._prepare, query, candidates)
        try:
            async with asyncio.TaskGroup() as pairs:
                tasks = {place: pairs.create_task(self._score(*prompt)) for place, prompt in prompts.items()}
        except* JudgeUnavailable as deaths:
            raise JudgeUnavailable(str(deaths.exceptions[0])) from deaths
        for place, task in tasks.items():
            answers[place] = task.result()
        return [found for found in answers if found is not None]

    def _prepare(
        self, query: Content, candidates: Sequence[Content]
    ) -> tuple[list[Verdict | PairError | None], dict[int, tuple[dict[str, Any], int]]]:
        """As `Inputs.prepare`, each stream as vLLM takes it, with its length."""
        answers, streams = self._inputs.prepare(query, candidates)
        model = self._inputs.model
        prompts = {}
        for place, stream in streams.items():
            prompt: dict[str, Any] = {"prompt_token_ids": model.placeholders(stream)}
            if pictures := [model.pictures(entry).image for entry in stream if isinstance(entry, bytes)]:
                prompt["multi_modal_data"] = {"image": pictures}
            prompts[place] = prompt, model.length(stream)
        return answers, prompts

    async def _score(self, prompt: dict[str, Any], expected: int) -> Verdict | PairError:
        try:
            output = await self._engine.generate(prompt, self._parameters)
        except _PairRefused as refusal:
            return PairError(code="refused", message=str(refusal))
        found = len(output.prompt_token_ids)
        if found != expected:
            message = f"the engine made {found} tokens of a prompt of {expected}; it scales pictures otherwise"
            return PairError(code="token_count", message=message)
        self.prompt_tokens += found
        self.cached_tokens += output.num_cached_tokens or 0
        (first,) = output.outputs[0].logprobs
        yes, no = (first[label].logprob for label in self._labels)
        return answer(yes, no, argmax_is_label=output.outputs[0].token_ids[0] in self._labels)


class _AsyncEngine:
    """vLLM's own, in processes of its own."""

    def __init__(self, options: dict[str, Any]):
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**options))

    async def generate(self, prompt: dict[str, Any], parameters: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        last = None
        try:
            async for output in self._engine.generate(prompt, parameters, uuid.uuid4().hex):
                last = output
        except EngineDeadError as error:
            raise JudgeUnavailable(f"the engine has died: {error}") from error
        except Exception as refusal:  # this prompt alone, whatever vLLM found in it; the engine goes on
            raise _PairRefused(f"{type(refusal).__name__}: {refusal}") from refusal
        return last


class _InProcessEngine:
    """The synchronous engine, stepped by a thread of its own; only that thread touches it."""

    def __init__(self, options: dict[str, Any]):
        from vllm import LLM

        self._engine = LLM(**options).llm_engine
        self._inbox: queue.Queue[tuple[str, tuple[dict[str, Any], Any] | None]] = queue.Queue()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._death: BaseException | None = None
        threading.Thread(target=self._run, name="vllm", daemon=True).start()

    async def generate(self, prompt: dict[str, Any], parameters: Any) -> Any:
        request = uuid.uuid4().hex
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting[request] = loop, future
        if self._death is not None:  # asked after we wait in the list: a death now settles us, an earlier one is seen
            del self._waiting[request]
            raise JudgeUnavailable(f"the engine has died: {self._death!r}")
        self._inbox.put((request, (prompt, parameters)))
        try:
            return await future
        finally:
            if self._waiting.pop(request, None) is not None:  # the caller went away: the engine forgets it too
                self._inbox.put((request, None))

    def _run(self) -> None:
        try:
            while True:
                self._take()
                for output in self._engine.step():
                    if output.finished:
                        self._settle(output.request_id, output)
        except BaseException as death:  # noqa: BLE001  whatever it was, every caller must hear of it
            self._death = death
            for request in list(self._waiting):
                self._settle(request, JudgeUnavailable(f"the engine has died: {death!r}"))

    def _take(self) -> None:
        """Moves what callers sent into the engine; waits when the engine has nothing to do."""
        wait = not self._engine.has_unfinished_requests()
        while wait or not self._inbox.empty():
            request, work = self._inbox.get()
            if work is None:
                self._engine.abort_request([request])
                continue
            wait = False
            try:
                self._engine.add_request(request, *work)
            except Exception as refusal:  # noqa: BLE001  this prompt alone; the engine goes on
                self._settle(request, _PairRefused(f"{type(refusal).__name__}: {refusal}"))
                wait = not self._engine.has_unfinished_requests()

    def _settle(self, request: str, outcome: Any) -> None:
        loop, future = self._waiting.pop(request, (None, None))
        if loop is None or future is None:
            return

        def tell() -> None:
            if not future.done():
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

        with contextlib.suppress(RuntimeError):  # the caller's loop has closed: nobody is left to tell
            loop.call_soon_threadsafe(tell)
