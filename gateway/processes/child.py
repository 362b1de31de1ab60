"""One process of the gateway, `python -m gateway.processes.child <kind> …`, started by `Child`. Not for people.

An entry of its own, not a command: a proxy that is started again after a crash must not wait for the imports of the
whole command line.
"""

import argparse
import asyncio
import gc
import socket
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import get_args

import uvloop

from gateway.config.secret_table import Kind
from gateway.config.settings import Settings
from gateway.kit.core_dumps import forbid_dumps
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.kit.log import configure
from gateway.kit.loops import LoopFailed
from gateway.processes.arguments import ProcessArguments
from gateway.processes.exit_status import CALLS_STAY, CallsStay
from gateway.processes.file_limit import raise_file_limit
from gateway.processes.handed_settings import HandedLines, decode_settings
from gateway.processes.live_secrets import LiveSecrets
from gateway.processes.parent import Parent, hear_parent
from gateway.processes.supervisor import Ready

Run = Callable[[Settings, ProcessArguments, asyncio.Event, Ready], Awaitable[None]]


def main(failpoint: Failpoint = pass_by) -> None:
    """Returns when the process has stopped in order; exits 1 when a background loop has failed, 75 when calls stay on
    the disk (exit_status.py)."""
    forbid_dumps()
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--settings-on-stdin", action="store_true")
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--listener", type=int, action="append", default=[])
    options = parser.parse_args()
    # By name: each kind imports what it needs, and no more.
    run: Run = import_module(f"gateway.processes.{options.kind}").run
    configure(f"{options.kind}-{options.slot}" if options.kind == "proxy" else options.kind)
    calm_gc()
    raise_file_limit()
    lines = HandedLines()
    try:
        settings = decode_settings(lines.read_first()) if options.settings_on_stdin else Settings()
    except EOFError:
        raise SystemExit(1) from None
    secrets = LiveSecrets(settings)
    listeners = tuple(socket.socket(fileno=number) for number in options.listener)
    arguments = ProcessArguments(options.slot, options.host, options.port, failpoint, secrets.on_change, listeners)
    try:
        uvloop.run(_run(run, settings, options.ready_fd, arguments, lines, secrets))
    except LoopFailed:  # its log line says all; a traceback could quote what somebody sent
        raise SystemExit(1) from None
    except CallsStay as error:
        sys.stderr.write(f"gateway: {error}\n")
        raise SystemExit(CALLS_STAY) from None


def calm_gc() -> None:
    """What lives as long as the process is never looked at again; the rest rarely makes cycles (measured: 8 % of the
    CPU of a call went into looking)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _run(
    run: Run, settings: Settings, ready_fd: int, arguments: ProcessArguments, lines: HandedLines, secrets: LiveSecrets
) -> None:
    stop, leave = asyncio.Event(), asyncio.Event()
    hear_parent(stop, leave, lines, lambda line: secrets.take(decode_settings(line)))
    parent = Parent(ready_fd)
    try:
        await run(settings, arguments._replace(leaving=leave.is_set), stop, parent.ready)
    finally:
        parent.close()


if __name__ == "__main__":
    main()
