"""`gateway up`: everything on one machine until Ctrl-C, with one ready-to-use key."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.cli.text import Say
from gateway.config.settings import Settings
from gateway.embedded import EmbeddedError
from gateway.keys import create as keys
from gateway.kit.version import build_labels
from gateway.processes import env_file, local
from gateway.processes.admin import Board
from gateway.processes.stack import open_admin
from gateway.processes.supervisor import run_until_stopped, stop_on_signals

USER: Final = "you@example.com"
WATCH_S: Final = 1.0


async def up(settings: Settings, environ: Mapping[str, str], *, real: frozenset[str], workers: int, say: Say) -> None:
    """Runs until SIGTERM or SIGINT, also when that comes while it starts."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    # A terminal that took over the last start's variables may start the next one too.
    environ = env_file.without_file_values(environ, env_file.read(settings.gateway_data_dir))
    await run_until_stopped(_run(settings, environ, real, workers, say, stop), stop, lambda: say("stopping"))
    say("stopped; the data is kept for the next start")


async def _run(
    settings: Settings, environ: Mapping[str, str], real: frozenset[str], workers: int, say: Say, stop: asyncio.Event
) -> None:
    board = Board(monotonic=time.monotonic, build=build_labels(environ))
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
                own_user=None if "unkey" in real else USER,
            )
        )
        key = None if "unkey" in real else await ready_key(running, settings)
        theirs, stale = local.of_real_vendors(real, running.settings)
        written = env_file.write(
            settings.gateway_data_dir, exported_variables(running, admin_url, environ), theirs=theirs, stale=stale
        )
        for line in welcome(running, key, admin_url, written, local.own_keys(real)):
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
        user=USER,
        name="made by gateway up",
        create_user=True,
    )
    local.keep_local_key(data_dir, made.secret)
    return made.secret


def exported_variables(running: local.Local, admin_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with which other commands find this gateway: where it is, and what `up` made. What the user had set
    stays theirs and is not copied to disk: it may be a real vendor's key.
    """
    gateway, admin = urlsplit(running.base_url), urlsplit(admin_url)
    return {
        **{name: value for name, value in running.env.items() if environ.get(name) != value},
        "GATEWAY_DATA_DIR": running.env["GATEWAY_DATA_DIR"],
        "GATEWAY_HOST": str(gateway.hostname),
        "GATEWAY_PORT": str(gateway.port),
        "GATEWAY_ADMIN_HOST": str(admin.hostname),
        "GATEWAY_ADMIN_PORT": str(admin.port),
    }


def welcome(running: local.Local, key: str | None, admin_url: str, env: Path, own: Sequence[str]) -> list[str]:
    """What a developer needs in order to make the first call; whatever it names works from the current folder."""
    gateway, source = env_file.command(), f". {env_file.path_from_here(env)}"
    shown = key or f"YOUR_KEY   (make one: {source}; {gateway} keys create --user {USER} --create-user)"
    return [
        "",
        f"  base_url  {running.base_url}",
        f"  api_key   {shown}",
        "",
        f"  curl {running.base_url}/chat/completions -H 'Authorization: Bearer {key or 'YOUR_KEY'}' \\",
        "    -H 'Content-Type: application/json' \\",
        """    -d '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'""",
        "",
        f"  usage     DATABASE_URL='{running.env['DATABASE_URL']}' {gateway} report usage",
        f"  more      {source}    in another terminal; then, for example:",
        *([f"            export {' '.join(own)}    yourself first: the file does not hold them"] if own else []),
        f"            {gateway} keys create --user {USER}",
        f"            {gateway} doctor",
        f"  metrics   {admin_url}/metrics",
        f"  log       {env_file.path_from_here(running.log)}",
        "",
        "Ready. Ctrl-C stops everything; starting again keeps the data.",
    ]
