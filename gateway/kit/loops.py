"""The background loops of one process. None of them may end unseen.

An outage (DependencyDown) is waited out: logged once, shown as what the process waits for, tried again with growing
waits. Anything else is a bug, a statement that the database refuses too: it is logged with the loop's name, and the
process ends, so that its parent starts it again. The log line says where, never what: the message of an error may
quote what somebody sent.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

import structlog

from gateway.kit.errors import DependencyDown, DependencyFull, Expected, StatementRefused

RETRY_S: Final = 0.1
"""Seconds after the first failure of an outage; each next wait is twice as long."""
RETRY_MAX_S: Final = 1.5
"""Looking costs a dependency that is away nothing, and there is a backlog once it is back: after a failover, however
long it took, work goes on within two seconds."""
FRAMES: Final = 3
"""Innermost places that the line about a bug names."""
_log: Final = structlog.get_logger("gateway.loops")


class LoopFailed(Expected):
    """A background loop has met a bug. It is in the log already, so this says no more than which loop."""


class _Loop(NamedTuple):
    name: str
    step: Callable[[], Awaitable[float]]
    """One pass; the seconds until the next."""
    retry_s: float
    finishes: bool


class Loops:
    """Name the loops first, then `async with loops:` runs them. `await loops.run_until(stop)` in its body."""

    def __init__(self, *, uniform: Callable[[float, float], float]) -> None:
        """`uniform` gives the jitter, so that processes do not march in step."""
        self._uniform: Final = uniform
        self._loops: Final[list[_Loop]] = []
        self._closing: Final = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._waiting: Final[dict[str, str]] = {}
        self.failed: str | None = None
        """The loop that has met a bug; None while all is well."""
        self._detail: str | None = None

    def every(
        self, name: str, step: Callable[[], Awaitable[object]], *, every_s: float, retry_s: float = RETRY_S
    ) -> None:
        """Repeats `step`, with `every_s` seconds between; cancelled at the end. `retry_s`: an outage's first wait."""

        async def paced() -> float:
            await step()
            return every_s

        self._loops.append(_Loop(name, paced, retry_s, finishes=False))

    def paced(self, name: str, step: Callable[[], Awaitable[float]], *, finishes: bool = False) -> None:
        """Repeats `step`, which returns the seconds until its next pass. One that `finishes` is not cancelled at the
        end: the pass that runs is completed."""
        self._loops.append(_Loop(name, step, RETRY_S, finishes))

    @property
    def waiting_on(self) -> str | None:
        """The dependency that a loop waits for, of the loop that was named first; None while all of them work."""
        return next((self._waiting[loop.name] for loop in self._loops if loop.name in self._waiting), None)

    @property
    def failure(self) -> str | None:
        """Why this process ends; None while all is well."""
        if self.failed is None:
            return None
        return f"the background loop {self.failed!r} has failed" + (f": {self._detail}" if self._detail else "")

    async def run_until(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises LoopFailed as soon as a loop has met a bug."""
        assert self._supervisor is not None
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, self._supervisor}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        self._check()

    async def __aenter__(self) -> Self:
        # A task of its own: a group in the caller's would cancel the caller, also where it takes things down in order.
        self._supervisor = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the loops that finish, ends the others. Raises LoopFailed where nobody has seen it yet."""
        assert self._supervisor is not None
        self._closing.set()
        await asyncio.wait({self._supervisor})
        if error is None:
            self._check()

    def _check(self) -> None:
        if self.failure is not None:
            raise LoopFailed(f"{self.failure}; the log says where")

    async def _supervise(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._run(loop), name=loop.name) for loop in self._loops]
                await self._closing.wait()
                for loop, task in zip(self._loops, tasks, strict=True):
                    if not loop.finishes:
                        task.cancel()
        except* LoopFailed:
            assert self.failed is not None  # `until`, or the end of the block, raises it in the caller's task

    async def _run(self, loop: _Loop) -> None:
        failures = 0
        while True:
            try:
                wait_s = await loop.step()
                failures = 0
                if self._waiting.pop(loop.name, None) is not None:
                    _log.info("loop resumed", loop=loop.name)
            except StatementRefused as error:
                raise self._bug(loop.name, error, error.detail) from None
            except DependencyDown as error:
                wait_s = min(max(RETRY_MAX_S, loop.retry_s), loop.retry_s * 2.0 ** min(failures, 16))
                failures += 1
                self._waits(loop.name, error)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise self._bug(loop.name, error) from None  # somebody else's cancellation: no loop ends by that
            except Exception as error:  # noqa: BLE001  # whatever it is, the process ends by it
                raise self._bug(loop.name, error) from None
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a library has made an error, or nothing, of the cancellation
                raise asyncio.CancelledError
            if await self._is_over(wait_s * self._uniform(0.9, 1.1)):
                return

    async def _is_over(self, wait_s: float) -> bool:
        """Waits; whether the end has come meanwhile."""
        if self._closing.is_set():
            return True
        if wait_s <= 0:
            await asyncio.sleep(0)
            return self._closing.is_set()
        try:
            async with asyncio.timeout(wait_s):
                return await self._closing.wait()
        except TimeoutError:
            return False

    def _waits(self, name: str, error: DependencyDown) -> None:
        """One line for an outage, however long it takes."""
        what = f"{error.what}, which is full" if isinstance(error, DependencyFull) else error.what
        if self._waiting.get(name) != what:
            _log.warning("loop waits", loop=name, what=what, detail=error.detail)
        self._waiting[name] = what

    def _bug(self, name: str, error: BaseException, detail: str | None = None) -> LoopFailed:
        """`detail` is why, where that quotes nothing."""
        if self.failed is None:
            self.failed, self._detail = name, detail
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
        where = [f"{frame.filename}:{frame.lineno}" for frame in frames]
        _log.error("loop failed, process ends", loop=name, error=type(error).__name__, detail=detail, where=where)
        return LoopFailed(name)
