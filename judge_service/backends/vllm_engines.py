"""vLLM's two engines behind one method: one prompt to its first token.

On a GPU vLLM's asynchronous engine runs in processes of its own; on a CPU the engine runs inside this process, stepped
by a thread: a third of the memory, a tenth of the start.
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
"""How often a dead engine's process is looked at before its log alone must do."""


class InvalidPrompt(Exception):
    """The engine does not take this prompt; the others are none the worse for it."""


class Engine(Protocol):
    """What runs one prompt to its first token."""

    @property
    def is_dead(self) -> bool:
        """Whether it answers nothing any more."""
        ...

    async def generate(self, prompt: dict[str, Any], parameters: Any, *, again: bool = False) -> Any:
        """The finished output; it may hold no answer.

        Args:
            prompt: Tokens and pictures.
            parameters: Of the sampling.
            again: The engine gave no answer to this prompt before: nothing is left out that it should know already.

        Raises:
            InvalidPrompt: It does not take this one.
            JudgeDied: It died while this one was in it.
            JudgeUnavailable: It had died before.
        """
        ...


class AsyncEngine:
    """vLLM's own, in processes of its own."""

    def __init__(self, options: dict[str, Any], log: Path):
        """Starts it.

        Args:
            options: Of `AsyncEngineArgs`.
            log: Where its processes print.
        """
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._log = log
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**options))
        processes = self._engine.engine_core.resources.engine_manager.processes
        self._guardian = guard([process.pid for process in processes])

    @property
    def is_dead(self) -> bool:
        """Whether vLLM knows that one of its processes has ended."""
        return bool(self._engine.errored)

    async def generate(self, prompt: dict[str, Any], parameters: Any, *, again: bool = False) -> Any:
        """The finished output.

        vLLM sends a picture to its engine once, and notes that the engine has it. The note is wrong where the caller
        left between the two. Then the engine answers with an error, and the second time gets the pictures whole.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        last = None
        kind = JudgeUnavailable if self.is_dead else JudgeDied
        try:
            if again:
                (prompt,) = await self._engine.renderer.render_cmpl_async([dict(prompt)], skip_mm_cache=True)
            async for output in self._engine.generate(prompt, parameters, uuid.uuid4().hex):
                last = output
        except EngineDeadError as error:
            raise await self._death(error, kind) from error
        except Exception as refusal:
            if self._engine.errored:
                raise await self._death(refusal, kind) from refusal
            # This prompt alone, whatever vLLM found in it; the engine goes on. Some of its errors only wrap another.
            cause = refusal if str(refusal) else refusal.__cause__ or refusal
            if isinstance(cause, AssertionError) and not again:
                return None  # a note was withdrawn by one thread of vLLM's while another one relied on it
            raise InvalidPrompt(f"{type(cause).__name__}: {cause}") from refusal
        return last

    async def _death(self, error: BaseException, kind: type[JudgeUnavailable]) -> JudgeUnavailable:
        """Why the engine has died: by its log, or by the signal that ended it."""
        manager = self._engine.engine_core.resources.engine_manager
        # vLLM hears that the process has died a moment before the system says how.
        for _ in range(REAPED_POLLS):
            if ended := manager.finished_procs():
                break
            await asyncio.sleep(REAPED_POLL_S)
        signals = {name: -code for name, code in ended.items() if code < 0}
        if signals:
            heard = ", ".join(f"{name} was ended by {_name(number)}" for name, number in signals.items())
            error = RuntimeError(heard)
        return kind(f"the engine has died: {explained(error, self._log, had_started=True)}")


def _name(number: int) -> str:
    """Of a signal; some have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class InProcessEngine:
    """The synchronous engine, stepped by a thread of its own; only that thread touches it."""

    def __init__(self, options: dict[str, Any]):
        from vllm import LLM

        self._engine = LLM(**options).llm_engine
        self._inbox: queue.Queue[tuple[str, tuple[dict[str, Any], Any] | None]] = queue.Queue()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._death: BaseException | None = None
        threading.Thread(target=self._run, name="vllm", daemon=True).start()

    @property
    def is_dead(self) -> bool:
        """Whether its thread has ended."""
        return self._death is not None

    async def generate(
        self,
        prompt: dict[str, Any],
        parameters: Any,
        *,
        again: bool = False,  # noqa: ARG002  this engine has what it was sent
    ) -> Any:
        """The finished output; a caller that goes away takes its request along."""
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
                self._settle(request, JudgeDied(f"the engine has died: {death!r}"))

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

        with contextlib.suppress(RuntimeError):  # the caller's loop has closed: nobody is left to tell
            loop.call_soon_threadsafe(tell)
