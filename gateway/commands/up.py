"""`gateway up`: everything on one machine until Ctrl-C, with one ready-to-use key."""

import asyncio
import contextlib
import io
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from rich.console import Console

from gateway.admin import Board
from gateway.commands import keys, local
from gateway.commands.stack import Say, open_admin
from gateway.core.config import Settings
from gateway.embedded import EmbeddedError
from gateway.processes import stop_on_signals

USER: Final = "you@example.com"
WATCH_S: Final = 1.0


async def up(settings: Settings, environ: Mapping[str, str], *, real: frozenset[str], workers: int, say: Say) -> None:
    """Runs until SIGTERM or SIGINT, also when that comes while it starts."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    work = asyncio.create_task(_run(settings, environ, real, workers, say, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        say("stopping")
        work.cancel()
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    say("stopped; the data is kept for the next start")


async def _run(
    settings: Settings, environ: Mapping[str, str], real: frozenset[str], workers: int, say: Say, stop: asyncio.Event
) -> None:
    board = Board(monotonic=time.monotonic)
    async with AsyncExitStack() as stack:
        # Beside another gateway of this machine, its port is taken.
        admin_url = await open_admin(
            settings.gateway_admin_host, settings.gateway_admin_port, board, stack, any_port=True
        )
        running = await stack.enter_async_context(
            local.running(
                settings.gateway_data_dir,
                environ,
                real=real,
                host=settings.gateway_host,
                port=settings.gateway_port,
                workers=workers,
                say=say,
                watcher=board,
            )
        )
        key = None if "unkey" in real else await ready_key(running, settings)
        for line in welcome(running, key, admin_url):
            say(line)
        await _watch(running, stop)


async def _watch(running: local.Local, stop: asyncio.Event) -> None:
    """Until `stop`. Raises EmbeddedError when a server has ended by itself."""
    while not stop.is_set():
        if running.servers is not None and (failure := running.servers.failure()):
            raise EmbeddedError(failure)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WATCH_S)


async def ready_key(running: local.Local, settings: Settings) -> str:
    """The key of this data folder's sandbox: the one of the last start, or a new one for `USER`."""
    data_dir = settings.gateway_data_dir
    known = local.local_key(data_dir)
    if known is not None:
        return known
    made = await keys.create(
        running.settings,
        Console(file=io.StringIO()),
        user=USER,
        now=datetime.now(UTC),
        name="made by gateway up",
        create_user=True,
    )
    local.keep_local_key(data_dir, made.secret)
    return made.secret


def welcome(running: local.Local, key: str | None, admin_url: str) -> list[str]:
    """What a developer needs in order to make the first call."""
    shown = key or "YOUR_KEY   (make one: gateway keys create --user you@example.com --create-user)"
    return [
        "",
        f"  base_url  {running.base_url}",
        f"  api_key   {shown}",
        "",
        f"  curl {running.base_url}/chat/completions -H 'Authorization: Bearer {key or 'YOUR_KEY'}' \\",
        "    -H 'Content-Type: application/json' \\",
        """    -d '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'""",
        "",
        f"  usage     DATABASE_URL='{running.env['DATABASE_URL']}' gateway report usage",
        f"  metrics   {admin_url}/metrics",
        f"  log       {os.path.relpath(running.log)}",
        "",
        "Ready. Ctrl-C stops everything; starting again keeps the data.",
    ]
