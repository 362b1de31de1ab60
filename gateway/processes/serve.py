"""`gateway serve`: the gateway on real services, which the environment names."""

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from gateway.cli.text import Say
from gateway.config.settings import Settings, require_values
from gateway.kit.version import build_labels
from gateway.processes.admin import Board
from gateway.processes.exit_status import CALLS_STAY
from gateway.processes.live_secrets import Reload
from gateway.processes.preflight import Patience, Stopped, check_egress, free_slots, may_start, see_stores
from gateway.processes.stack import Gateway, bind_admin, open_admin, open_listeners
from gateway.processes.supervisor import run_until_stopped, stop_on_signals
from gateway.processes.take_over import Predecessor, Successor, find_predecessor


async def serve(
    settings: Settings,
    *,
    read_again: Callable[[], Settings],
    workers: int,
    background: bool,
    wait_s: float,
    take_over: bool,
    say: Say,
) -> int:
    """Runs until SIGTERM or SIGINT; the exit status. Raises ConfigError naming what is missing or wrong, and the fix.

    `read_again`: the settings as they are on SIGHUP. `wait_s`: seconds in which PostgreSQL and Redis may still come
    up. `take_over`: from a gateway that serves from the same data folder, if there is one (take_over.py).
    """
    require_values(settings, "database_url", "redis_url", "openai_api_key", "unkey_root_key")
    check_egress(settings, os.environ)
    stop = asyncio.Event()
    stop_on_signals(stop)
    reload = Reload(settings, read_again)
    reload.listen()
    async with AsyncExitStack() as stack:
        old = await find_predecessor(settings.gateway_data_dir, stack, say) if take_over else None
        listeners = _find_listeners(settings, workers, old, stack)
        try:
            beside = None if old is None else old.slots
            slots = await free_slots(settings, workers, Patience(wait_s, stop, say), beside=beside)
            all_there = await may_start(settings, wait_s, stop, say, takes_over=old is not None)
        except Stopped:
            return 0
        board = Board(monotonic=time.monotonic, build=build_labels(os.environ))
        admin_bound = _admin_socket(settings, old, stack)
        gateway = Gateway(  # with the latest settings: SIGHUP may have come meanwhile
            reload.settings, os.environ, host=settings.gateway_host, port=settings.gateway_port, slots=slots,
            background=background, watcher=board, listeners=listeners,
        )  # fmt: skip
        reload.receiver = gateway.hand_over
        room = None if old is None else partial(_make_room, old, settings, Patience(wait_s, stop, say), stop)
        try:
            await gateway.start(stack, room)
        except Stopped:
            return 0
        shown = await stack.enter_async_context(AsyncExitStack())
        admin_url = await open_admin("", 0, board, shown, bound=admin_bound)
        if old is not None:
            if stop.is_set():
                return 0  # the old one goes on
            await old.leave()
        successor = Successor(settings.gateway_data_dir, [admin_bound, *listeners], slots, gateway)
        successor.open(stack)
        _tell_where(settings, listeners[0], workers, admin_url, say)
        stopping = partial(say, "stopping: waiting for running calls to finish")
        seeing = None if all_there else _await_stores(settings, stop, say)
        if await run_until_stopped(_until_replaced(successor, seeing), stop, stopping):
            say("another gateway has taken over: finishing the calls that run")
            await shown.aclose()
            successor.close()
            await run_until_stopped(gateway.leave(), stop, stopping)
            return 0  # what they leave is the other keeper's
    return CALLS_STAY if gateway.keeper_exit else 0  # it has said how many


def _admin_socket(settings: Settings, old: Predecessor | None, stack: AsyncExitStack) -> socket.socket:
    at = settings.gateway_admin_host, settings.gateway_admin_port
    given = [] if old is None else old.listeners(*at)
    return given[0] if given else bind_admin(*at, stack)


def _find_listeners(
    settings: Settings, workers: int, old: Predecessor | None, stack: AsyncExitStack
) -> list[socket.socket]:
    at = settings.gateway_host, settings.gateway_port
    return open_listeners(*at, workers, [] if old is None else old.listeners(*at), stack)


def _tell_where(settings: Settings, listener: socket.socket, workers: int, admin_url: str, say: Say) -> None:
    proxies, port = "proxy" if workers == 1 else "proxies", listener.getsockname()[1]
    say(f"serving http://{settings.gateway_host}:{port}/v1 with {workers} {proxies}")
    say(f"metrics and readiness on {admin_url}")
    if settings.stripe_secret_key is None:
        say("STRIPE_SECRET_KEY is not set: amounts accrue and are not reported")


async def _make_room(old: Predecessor, settings: Settings, patience: Patience, stop: asyncio.Event) -> None:
    """Returns when the old keeper has let go of the journal. Raises Stopped."""
    if stop.is_set():
        raise Stopped
    await old.stop_keeper()
    await free_slots(settings, 0, patience)


async def _until_replaced(successor: Successor, seeing: Coroutine[Any, Any, None] | None) -> None:
    """Until another gateway has taken over. `seeing` waits for what was away at the start, and raises where it is
    unfit."""
    tasks = [asyncio.create_task(each) for each in (successor.wait(), seeing) if each is not None]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            await tasks[-1]
        await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _await_stores(settings: Settings, stop: asyncio.Event, say: Say) -> None:
    """Until what was away at the start is there, or `stop`. Raises ConfigError when it is not fit, as at a start."""
    try:
        await see_stores(settings, math.inf, stop, say)
    except Stopped:
        return
    say("PostgreSQL and Redis are there, and fit")
