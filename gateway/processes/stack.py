"""The processes that `serve`, `up` and `demo` run: proxies, keeper, worker, started in order, stopped in reverse."""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from gateway.config.secret_table import Kind
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.processes import admin
from gateway.processes.handed_settings import encode_settings, without_secrets
from gateway.processes.supervisor import Child, Watcher, listen, probe


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


async def open_admin(host: str, port: int, board: admin.Board, stack: AsyncExitStack, *, any_port: bool = False) -> str:
    """Serves the board on `port` (0: any free one) until the stack closes; where that is, as a URL.

    `any_port`: where the port is taken, a free one will do. Raises ConfigError otherwise.
    """
    server = admin.handler(board)
    runner = web.ServerRunner(server)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    server.watch()
    stack.callback(server.stop_watching)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if not (any_port and error.errno == errno.EADDRINUSE):
            wrong = f"cannot listen on {host}:{port}: {error.strerror}"
            raise ConfigError(f"GATEWAY_ADMIN_HOST/GATEWAY_ADMIN_PORT: {wrong}") from None
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
    ) -> None:
        """`environ`: what the processes have beside their settings; secrets in it are not passed on."""
        env = without_secrets(environ)

        def child(name: str, kind: Kind, *arguments: str) -> tuple[Child, Kind]:
            line = encode_settings(settings, kind)
            return Child(name, (kind, *arguments), env, settings=line, log_fd=log_fd, watcher=watcher), kind

        where = ("--host", host, "--port", str(port))
        made = [
            child("keeper", "keeper"),
            *([child("worker", "worker")] if background else []),
            *(child(f"proxy-{slot}", "proxy", "--slot", str(slot), *where) for slot in slots),
        ]
        self._kinds: Final = dict(made)
        self._children: Final = list(self._kinds)

    def hand_over(self, settings: Settings) -> None:
        """New secrets for all of them."""
        for child, kind in self._kinds.items():
            child.hand_over(encode_settings(settings, kind))

    async def start(self, stack: AsyncExitStack) -> None:
        """Returns when every process is ready. Raises ChildFailed; the stack stops what was started."""
        stack.push_async_callback(self.stop)
        await asyncio.gather(*(child.start() for child in self._children))

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
