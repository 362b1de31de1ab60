"""Takes connections from listening sockets while the process has descriptors for them.

libuv, at the limit of open files, accepts what waits and closes it: clients see connections that are cut. Here what
cannot be taken waits in the kernel's queue, and what is taken when there is no room for a call is answered 503.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Final

import structlog
from aiohttp import web

from gateway.http.connections import ClientConnections

BACKLOG: Final = 1024
BATCH: Final = 32
"""Connections taken in one go; then those that are open get their turn, and are counted."""
AGAIN_S: Final = 0.05
"""Seconds after which it is tried again."""
FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_log: Final = structlog.get_logger("gateway.proxy")


class Listener:
    """One per process; `start` once, `close` once."""

    def __init__(self, server: web.Server, connections: ClientConnections) -> None:
        self._server: Final = server
        self._connections: Final = connections
        self._loop: Final = asyncio.get_running_loop()
        self._sockets: Final[list[socket.socket]] = []
        self._opening: Final[set[asyncio.Task[None]]] = set()
        self._again: asyncio.TimerHandle | None = None

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Takes what comes on these, which are bound, from now on."""
        for listener in sockets:
            listener.setblocking(False)
            listener.listen(BACKLOG)
        self._sockets.extend(sockets)
        self._resume()

    def close(self) -> None:
        """Takes nothing more, and lets go of the sockets."""
        self._pause()
        for listener in self._sockets:
            listener.close()
        self._sockets.clear()

    def _pause(self) -> None:
        if self._again is not None:
            self._again.cancel()
        for listener in self._sockets:
            self._loop.remove_reader(listener)

    def _resume(self) -> None:
        self._again = None
        for listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def _wait(self) -> None:
        self._pause()
        self._again = self._loop.call_later(AGAIN_S, self._resume)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(BATCH):
            if not self._connections.may_accept(self._loop.time()):
                self._wait()
                return
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self._connections.find_no_file_left()
                self._wait()
                return
            opening = self._loop.create_task(self._open(accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._server, accepted)
        except OSError as error:  # it has left already
            accepted.close()
            _log.debug("connection not opened", error=type(error).__name__)
