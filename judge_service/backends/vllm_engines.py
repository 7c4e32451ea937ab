"""vLLM's two engines behind one method: `generate` computes the first token after a prompt.

On a GPU vLLM's asynchronous engine runs in separate processes. On a CPU the synchronous engine runs in a thread of this
process, which needs a third of the memory and starts in a tenth of the time.
"""

import asyncio
import contextlib
import queue
import signal
import threading
import uuid
from pathlib import Path
from typing import Any, Protocol

from judge_service.backends.engine_log import explained
from judge_service.backends.guardian import guard
from unijudge.errors import JudgeDied, JudgeUnavailable

REAPED_POLL_S = 0.05
REAPED_POLLS = 20
"""The number of times that the exit status of a dead engine's process is polled. Then only the log shows the cause."""


class InvalidPrompt(Exception):
    """The engine rejects this prompt. Other prompts are not affected."""


class Engine(Protocol):
    """An engine that computes the first token after a prompt."""

    @property
    def is_dead(self) -> bool:
        """Whether the engine has died."""
        ...

    async def generate(
        self, prompt: dict[str, Any], parameters: Any, *, again: bool = False
    ) -> Any:
        """Returns the finished output. The output may have no answer.

        Args:
            prompt: The tokens and pictures.
            parameters: The sampling parameters.
            again: Whether the engine gave no answer to this prompt before. Then the whole prompt is sent, including
                pictures that the engine should already have.

        Raises:
            InvalidPrompt: The engine rejects this prompt.
            JudgeDied: The engine died while it worked on this prompt.
            JudgeUnavailable: The engine had died before.
        """
        ...


class AsyncEngine:
    """vLLM's asynchronous engine, which runs in separate processes."""

    def __init__(self, options: dict[str, Any], log: Path):
        """Starts the engine.

        Args:
            options: The arguments of `AsyncEngineArgs`.
            log: The file for the output of the engine's processes.
        """
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._log = log
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**options))
        processes = self._engine.engine_core.resources.engine_manager.processes
        self._guardian = guard([process.pid for process in processes])

    @property
    def is_dead(self) -> bool:
        """Whether vLLM noticed the end of one of its processes."""
        return bool(self._engine.errored)

    async def generate(
        self, prompt: dict[str, Any], parameters: Any, *, again: bool = False
    ) -> Any:
        """Returns the finished output.

        vLLM sends a picture to its engine once, and notes in a cache that the engine has the picture. The note is wrong
        if the caller left between the two steps. Then the engine answers with an error. The caller repeats the prompt
        with `again`, which sends the pictures again.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        last = None
        kind = JudgeUnavailable if self.is_dead else JudgeDied
        try:
            if again:
                (prompt,) = await self._engine.renderer.render_cmpl_async(
                    [dict(prompt)], skip_mm_cache=True
                )
            async for output in self._engine.generate(prompt, parameters, uuid.uuid4().hex):
                last = output
        except EngineDeadError as error:
            raise await self._death(error, kind) from error
        except Exception as refusal:
            if self._engine.errored:
                raise await self._death(refusal, kind) from refusal

            # The engine still runs, so the error is about this prompt. Some of vLLM's errors only wrap another error.
            cause = refusal if str(refusal) else refusal.__cause__ or refusal

            # One of vLLM's threads removed a note from the cache while another thread relied on the note.
            if isinstance(cause, AssertionError) and not again:
                return None
            raise InvalidPrompt(f"{type(cause).__name__}: {cause}") from refusal
        return last

    async def _death(self, error: BaseException, kind: type[JudgeUnavailable]) -> JudgeUnavailable:
        """Returns an error with the reason of the engine's death, from its log or from the signal that ended it."""
        # vLLM notices the end of a process shortly before the exit status is available.
        manager = self._engine.engine_core.resources.engine_manager
        for _ in range(REAPED_POLLS):
            if ended := manager.finished_procs():
                break
            await asyncio.sleep(REAPED_POLL_S)

        # A negative exit status is the number of a signal.
        signals = {name: -code for name, code in ended.items() if code < 0}
        if signals:
            ends = [f"{name} was ended by {_name(number)}" for name, number in signals.items()]
            error = RuntimeError(", ".join(ends))
        return kind(f"the engine has died: {explained(error, self._log, had_started=True)}")


def _name(number: int) -> str:
    """Returns the name of a signal. Some signals only have a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class InProcessEngine:
    """vLLM's synchronous engine. Only one thread uses the engine."""

    def __init__(self, options: dict[str, Any]):
        from vllm import LLM

        self._engine = LLM(**options).llm_engine
        self._inbox: queue.Queue[tuple[str, tuple[dict[str, Any], Any] | None]] = queue.Queue()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._death: BaseException | None = None
        thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        thread.start()

    @property
    def is_dead(self) -> bool:
        """Whether the engine's thread has ended."""
        return self._death is not None

    async def generate(
        self,
        prompt: dict[str, Any],
        parameters: Any,
        *,
        again: bool = False,  # noqa: ARG002  this engine always gets the whole prompt
    ) -> Any:
        """Returns the finished output. If this task is cancelled, the engine drops the request."""
        request = uuid.uuid4().hex
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        # The future must be in `_waiting` before the check: a later death sets the future's error.
        self._waiting[request] = loop, future
        if self._death is not None:
            del self._waiting[request]
            raise JudgeUnavailable(f"the engine has died: {self._death!r}")
        self._inbox.put((request, (prompt, parameters)))

        # Without a result the caller has left.
        try:
            return await future
        finally:
            if self._waiting.pop(request, None) is not None:
                self._inbox.put((request, None))

    def _run(self) -> None:
        try:
            while True:
                self._take()
                for output in self._engine.step():
                    if output.finished:
                        self._settle(output.request_id, output)
        except BaseException as death:  # noqa: BLE001  every caller must get an error, whatever the cause
            self._death = death
            for request in list(self._waiting):
                self._settle(request, JudgeDied(f"the engine has died: {death!r}"))

    def _take(self) -> None:
        """Moves the callers' requests into the engine. Waits for a request if the engine is idle."""
        wait = not self._engine.has_unfinished_requests()
        while wait or not self._inbox.empty():
            request, work = self._inbox.get()
            if work is None:  # the caller has left
                self._engine.abort_request([request])
                continue

            wait = False
            try:
                self._engine.add_request(request, *work)
            except Exception as refusal:  # noqa: BLE001  the error is about this prompt, so the engine continues
                self._settle(request, InvalidPrompt(f"{type(refusal).__name__}: {refusal}"))
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

        # The caller's event loop has closed, so the caller is gone.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell)
