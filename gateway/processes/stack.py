"""The processes that `serve`, `up` and `demo` run: proxies, keeper, worker, started in order, stopped in reverse."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from gateway.config.secret_table import Kind
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.processes import admin
from gateway.processes.handed_settings import encode_settings, without_secrets
from gateway.processes.supervisor import (
    LEAVE,
    RESTART_MAX_S,
    STOP_S,
    Child,
    ChildFailed,
    Watcher,
    listen,
    probe,
)


def open_listeners(
    host: str, port: int, count: int, given: Sequence[socket.socket], stack: AsyncExitStack
) -> list[socket.socket]:
    """`count` sockets bound to `port`, or more, which the stack closes. `given`: those of a gateway that listens there
    and hands over. Raises ConfigError when the port is somebody else's.
    """
    if not given:
        port = reserve(host, port, stack)
    made = [listen(host, port) for _ in range(count - len(given))]
    for each in made:
        stack.callback(each.close)
    return [*given, *made]


def bind_admin(host: str, port: int, stack: AsyncExitStack) -> socket.socket:
    """A socket bound to the admin address, which the stack closes. Raises ConfigError when it is taken."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    stack.callback(bound.close)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()  # else another process could bind it too
    except OSError as error:
        raise _admin_taken(host, port, error) from None
    return bound


def _admin_taken(host: str, port: int, error: OSError) -> ConfigError:
    wrong = f"cannot listen on {host}:{port}: {error.strerror}"
    return ConfigError(f"GATEWAY_ADMIN_HOST/GATEWAY_ADMIN_PORT: {wrong}")


def reserve(host: str, port: int, stack: AsyncExitStack) -> int:
    """Holds `port` (0: any free one) on `host` for children that share it, until the stack closes.

    Raises ConfigError when it is taken.
    """
    try:
        if port:
            # Sharing is for our own children only: a port that somebody listens on already must not be shared.
            probe(host, port)
        listener = listen(host, port)
    except OSError as error:
        raise ConfigError(f"GATEWAY_HOST/GATEWAY_PORT: cannot listen on {host}:{port}: {error.strerror}") from None
    stack.callback(listener.close)
    return int(listener.getsockname()[1])


async def open_admin(
    host: str,
    port: int,
    board: admin.Board,
    stack: AsyncExitStack,
    *,
    any_port: bool = False,
    bound: socket.socket | None = None,
) -> str:
    """Serves the board on `port` (0: any free one) until the stack closes; where that is, as a URL.

    `any_port`: where the port is taken, a free one will do. Raises ConfigError otherwise. `bound`: a socket that is
    bound already; it stays open.
    """
    server = admin.handler(board)
    runner = web.ServerRunner(server)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    server.watch()
    stack.callback(server.stop_watching)
    try:
        await (web.TCPSite(runner, host, port) if bound is None else web.SockSite(runner, bound.dup())).start()
    except OSError as error:
        if not (any_port and error.errno == errno.EADDRINUSE):
            raise _admin_taken(host, port, error) from None
        await web.TCPSite(runner, host, 0).start()
    address = runner.addresses[-1]
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{shown}:{address[1]}"


class Gateway:
    """The gateway's own processes under one configuration."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        host: str,
        port: int,
        slots: Sequence[int],
        background: bool = True,
        log_fd: int | None = None,
        watcher: Watcher | None = None,
        listeners: Sequence[socket.socket] = (),
    ) -> None:
        """`environ`: what the processes have beside their settings; secrets in it are not passed on. `listeners`: for
        the proxies, one each at least; without any each makes its own."""
        env = without_secrets(environ)

        def child(name: str, kind: Kind, *arguments: str, share: Sequence[socket.socket] = ()) -> tuple[Child, Kind]:
            line, given = encode_settings(settings, kind), (kind, *arguments)
            made = Child(name, given, env, settings=line, log_fd=log_fd, watcher=watcher, listeners=share)
            return made, kind

        where = ("--host", host, "--port", str(port))
        made = [
            child("keeper", "keeper"),
            *([child("worker", "worker")] if background else []),
            *(
                child(f"proxy-{slot}", "proxy", "--slot", str(slot), *where, share=listeners[number :: len(slots)])
                for number, slot in enumerate(slots)
            ),
        ]
        self._leave_s: Final = settings.gateway_keepalive_s + STOP_S
        self._kinds: Final = dict(made)
        self._children: Final = list(self._kinds)
        self._keeper: Final = made[0][0]

    def hand_over(self, settings: Settings) -> None:
        """New secrets for all of them."""
        for child, kind in self._kinds.items():
            child.hand_over(encode_settings(settings, kind))

    async def start(self, stack: AsyncExitStack, before_keeper: Callable[[], Awaitable[None]] | None = None) -> None:
        """Returns when every process is ready. Raises ChildFailed; the stack stops what was started.

        `before_keeper`: makes room for the keeper, once the others are ready.
        """
        stack.push_async_callback(self.stop)
        if before_keeper is None:
            await asyncio.gather(*(child.start() for child in self._children))
            return
        await asyncio.gather(*(child.start() for child in self._children if child is not self._keeper))
        await before_keeper()
        await self._keeper.start()

    async def stop_keeper(self) -> None:
        """Another gateway's keeper is to have the journal."""
        await self._keeper.stop(LEAVE)

    async def start_keeper(self) -> None:
        """It is ours again. Tried until that works: the other one may still be ending."""
        while True:
            try:
                await self._keeper.start()
                return
            except (ChildFailed, OSError):  # an OSError: no process or no file is left
                await asyncio.sleep(RESTART_MAX_S / 10)

    async def leave(self) -> None:
        """Another gateway has taken over: returns when the proxies have finished their calls."""
        others = [child for child in self._children if child is not self._keeper]
        await asyncio.gather(*(child.stop(LEAVE, self._leave_s) for child in others))

    async def stop(self) -> None:
        """Proxies first, so that their last calls are still shipped; then the keeper, then the worker."""
        proxies = [child for child in self._children if child.name.startswith("proxy")]
        await asyncio.gather(*(child.stop() for child in proxies))
        for child in self._children:
            if child not in proxies:
                await child.stop()

    @property
    def keeper_exit(self) -> int | None:
        """The keeper's exit status, once it is stopped."""
        (keeper,) = [child for child in self._children if child.name == "keeper"]
        return None if keeper.process is None else keeper.process.returncode

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of the children that run now."""
        return {child.name: child.pid for child in self._children if child.pid is not None}
