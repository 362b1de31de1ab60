"""A TCP proxy that does what networks do: cuts, delays, swallows, half-closes, refuses; switched while it runs.

One `Link` stands between the gateway and one server (Redis, PostgreSQL, OpenAI's stand-in). It knows nothing of what
passes through it. Everything belongs to one event loop; `Wires` gives links a loop in a thread of their own, so that
they live while the caller's own loop waits for processes.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

Kind = Literal["pass", "cut", "delay", "swallow", "half-close", "refuse"]
KINDS: Final[tuple[Kind, ...]] = ("cut", "delay", "swallow", "half-close", "refuse")
PIECE_BYTES: Final = 64 * 1024
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose end is a reset, not a close in order."""
Target = tuple[str, int] | Path
T = TypeVar("T")


class Link:
    """One listening port in front of one server, `target` (host and port, or the path of a Unix socket; or who says
    which for each new connection)."""

    def __init__(self, target: Target | Callable[[], Target]) -> None:
        self._target = target
        self._kind: Kind = "pass"
        self._bytes_left = 0
        self._delay_s = 0.0
        self._open: Final = asyncio.Event()
        """Not set while bytes are swallowed."""
        self._open.set()
        self._pairs: Final[set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]]] = set()
        self._forgotten: Final[set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]]] = set()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self.port = 0
        self.passed_bytes = 0
        """In both directions."""

    @property
    def connections(self) -> int:
        """That run through it now."""
        return len(self._pairs)

    def set(self, kind: Kind, *, after_bytes: int = 0, delay_s: float = 0.0) -> None:
        """From now on, also for connections that are there already.

        `cut`: all are reset once `after_bytes` more have passed, new ones work. `delay`: each piece waits `delay_s`.
        `swallow`: nothing arrives any more, and nothing ends; what is under way comes when it is over. `half-close`:
        the server seems to have said its last word on every connection, and still listens. `refuse`: all are reset,
        new ones too. `pass` ends any of them.
        """
        self._kind, self._bytes_left, self._delay_s = kind, after_bytes, delay_s
        if kind == "swallow":
            self._open.clear()
        else:
            self._open.set()
        if kind == "refuse" or (kind == "cut" and not after_bytes):
            self._reset_all()
        elif kind == "half-close":
            for client, _ in self._pairs:
                with contextlib.suppress(OSError):
                    client.write_eof()

    def lead_to(self, target: Target) -> None:
        """New connections go to another server, as after a failover; those that are there stay where they are."""
        self._target = target

    def forget(self) -> None:
        """As a NAT gateway does after a long silence: nothing passes the connections that are there any more, and
        neither end hears of it. New ones work."""
        self._forgotten.update(self._pairs)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Link"]:
        """Listens on a free port of loopback; every connection is gone afterwards."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._reset_all()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._kind == "refuse":
            _reset(client)
            return
        try:
            answers, server = await self._connect()
        except OSError:
            _reset(client)
            return
        pair = (client, server)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, server, pair))
                both.create_task(self._pump(answers, client, pair))
        finally:
            self._pairs.discard(pair)
            self._forgotten.discard(pair)
            for writer in pair:
                writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target = self._target() if callable(self._target) else self._target
        if isinstance(target, Path):
            return await asyncio.open_unix_connection(target)
        return await asyncio.open_connection(*target)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        """One direction, to its end; a reset on either side ends both."""
        try:
            while piece := await reader.read(PIECE_BYTES):
                if pair in self._forgotten:
                    continue
                if self._kind == "delay":
                    await asyncio.sleep(self._delay_s)
                await self._open.wait()
                if self._kind == "cut" and self._bytes_left <= len(piece):
                    writer.write(piece[: self._bytes_left])
                    self._kind = "pass"
                    self._reset_all()
                    return
                self._bytes_left -= len(piece)
                self.passed_bytes += len(piece)
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError):  # a stream that was half-closed takes no more
            for each in pair:
                _reset(each)

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """The other side sees a reset (of a Unix socket: an end)."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class Wires:
    """Links that run in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        self._links: Final[list[tuple[Any, Link]]] = []

    def link(self, target: Target | Callable[[], Target]) -> Link:
        """A new one, listening."""

        async def start() -> Link:
            link = Link(target)
            context = link.running()
            await context.__aenter__()
            self._links.append((context, link))
            return link

        return self._do(start)

    def set(self, link: Link, kind: Kind, *, after_bytes: int = 0, delay_s: float = 0.0) -> None:
        """`Link.set`, from any thread."""
        self._loop.call_soon_threadsafe(lambda: link.set(kind, after_bytes=after_bytes, delay_s=delay_s))

    def close(self) -> None:
        """All of them."""

        async def end() -> None:
            for context, _ in self._links:
                await context.__aexit__(None, None, None)

        self._do(end)

    def _do(self, what: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)


@contextmanager
def wires() -> Iterator[Wires]:
    """A thread for links; it and they are gone when the context ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="wires", daemon=True)
    thread.start()
    made = Wires(loop)
    try:
        yield made
    finally:
        made.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
