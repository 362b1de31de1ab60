"""`gateway worker`: one background worker in this very process. Any number may run, on any host."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from gateway.cli.text import Say
from gateway.config.database_logins import with_own_login
from gateway.config.settings import Settings, require_values
from gateway.kit.version import build_labels
from gateway.processes import worker as worker_process
from gateway.processes.admin import Board
from gateway.processes.arguments import ProcessArguments
from gateway.processes.live_secrets import LiveSecrets, Reload
from gateway.processes.preflight import Patience, Stopped, check_egress, stores_are_there
from gateway.processes.stack import open_admin
from gateway.processes.supervisor import STATUS_EVERY_S, StatusOf, stop_on_signals
from gateway.processes.vitals import Reporter


async def worker(
    settings: Settings, *, read_again: Callable[[], Settings], admin_port: int, wait_s: float, say: Say
) -> None:
    """Until SIGTERM or SIGINT. `read_again`: the settings as they are on SIGHUP."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    reload, secrets = Reload(settings, read_again), LiveSecrets(settings)
    reload.receiver = secrets.take
    reload.listen()
    settings = with_own_login(settings, "worker")
    require_values(settings, "database_url", "redis_url")
    check_egress(settings, os.environ)
    try:
        await stores_are_there(settings, Patience(wait_s, stop, say), say, command="worker")
    except Stopped:
        return
    board = Board(monotonic=time.monotonic, build=build_labels(os.environ))
    async with AsyncExitStack() as stack:
        # Not GATEWAY_ADMIN_PORT: beside a `serve` of the same environment, whoever came first would keep it.
        admin_url = await open_admin(settings.gateway_admin_host, admin_port, board, stack)
        say(f"metrics and readiness on {admin_url}")

        def ready(status_of: StatusOf) -> None:
            board.mark_started("worker", os.getpid())
            reporter = Reporter(status_of, partial(board.heard, "worker"), every_s=STATUS_EVERY_S)
            stack.callback(reporter.close)
            reporter.start()

        arguments = ProcessArguments(0, "", 0, on_new_secret=secrets.on_change)
        # The latest: SIGHUP may have come meanwhile.
        await worker_process.run(with_own_login(reload.settings, "worker"), arguments, stop, ready)
