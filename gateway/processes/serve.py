"""`gateway serve`: the gateway on real services, which the environment names."""

import asyncio
import math
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from gateway.cli.text import Say
from gateway.config.settings import Settings, require_values
from gateway.kit.version import build_labels
from gateway.processes.admin import Board
from gateway.processes.exit_status import CALLS_STAY
from gateway.processes.live_secrets import Reload
from gateway.processes.preflight import Patience, Stopped, check_egress, free_slots, may_start, see_stores
from gateway.processes.stack import Gateway, open_admin, reserve
from gateway.processes.supervisor import stop_on_signals


async def serve(
    settings: Settings,
    *,
    read_again: Callable[[], Settings],
    workers: int,
    background: bool,
    wait_s: float,
    say: Say,
) -> int:
    """Runs until SIGTERM or SIGINT; the exit status. Raises ConfigError naming what is missing or wrong, and the fix.

    `read_again`: the settings as they are on SIGHUP. `wait_s`: seconds in which PostgreSQL and Redis may still come
    up.
    """
    require_values(settings, "database_url", "redis_url", "openai_api_key", "unkey_root_key")
    check_egress(settings, os.environ)
    stop = asyncio.Event()
    stop_on_signals(stop)
    reload = Reload(settings, read_again)
    reload.listen()
    host = settings.gateway_host
    async with AsyncExitStack() as stack:
        port = reserve(host, settings.gateway_port, stack)
        try:
            slots = await free_slots(settings, workers, Patience(wait_s, stop, say))
            all_there = await may_start(settings, wait_s, stop, say)
        except Stopped:
            return 0
        board = Board(monotonic=time.monotonic, build=build_labels(os.environ))
        admin_url = await open_admin(settings.gateway_admin_host, settings.gateway_admin_port, board, stack)
        # The latest: SIGHUP may have come meanwhile.
        gateway = Gateway(
            reload.settings, os.environ, host=host, port=port, slots=slots, background=background, watcher=board
        )
        reload.receiver = gateway.hand_over
        await gateway.start(stack)
        say(f"serving http://{host}:{port}/v1 with {workers} {'proxy' if workers == 1 else 'proxies'}")
        say(f"metrics and readiness on {admin_url}")
        if settings.stripe_secret_key is None:
            say("STRIPE_SECRET_KEY is not set: amounts accrue and are not reported")
        if not all_there:
            await _await_stores(settings, stop, say)
        await stop.wait()
        say("stopping: waiting for running calls to finish")
    return CALLS_STAY if gateway.keeper_exit else 0  # it has said how many


async def _await_stores(settings: Settings, stop: asyncio.Event, say: Say) -> None:
    """Until what was away at the start is there, or `stop`. Raises ConfigError when it is not fit, as at a start."""
    try:
        await see_stores(settings, math.inf, stop, say)
    except Stopped:
        return
    say("PostgreSQL and Redis are there, and fit")
