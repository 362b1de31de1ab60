"""One process of the gateway, `python -m gateway.processes.child <kind> …`, started by `Child`. Not for people.

An entry of its own, not a command: a proxy that is started again after a crash must not wait for the imports of the
whole command line.
"""

import argparse
import asyncio
import gc
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Literal, get_args

import uvloop

from gateway.config.settings import Settings
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.kit.log import configure
from gateway.kit.loops import LoopFailed
from gateway.processes.arguments import ProcessArguments
from gateway.processes.file_limit import raise_file_limit
from gateway.processes.parent import Parent, stop_with_parent
from gateway.processes.supervisor import Ready

Run = Callable[[Settings, ProcessArguments, asyncio.Event, Ready], Awaitable[None]]
Kind = Literal["proxy", "keeper", "worker", "sandbox"]


def main(failpoint: Failpoint = pass_by) -> None:
    """Returns when the process has stopped in order; exits 1 when a background loop has failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    # By name: each kind imports what it needs, and no more.
    run: Run = import_module(f"gateway.processes.{options.kind}").run
    configure(f"{options.kind}-{options.slot}" if options.kind == "proxy" else options.kind)
    calm_gc()
    raise_file_limit()
    arguments = ProcessArguments(options.slot, options.host, options.port, failpoint)
    try:
        uvloop.run(_run(run, Settings(), options.ready_fd, arguments))
    except LoopFailed:  # its log line says all; a traceback could quote what somebody sent
        raise SystemExit(1) from None


def calm_gc() -> None:
    """What lives as long as the process is never looked at again; the rest rarely makes cycles (measured: 8 % of the
    CPU of a call went into looking)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _run(run: Run, settings: Settings, ready_fd: int, arguments: ProcessArguments) -> None:
    stop = asyncio.Event()
    stop_with_parent(stop)
    parent = Parent(ready_fd)
    try:
        await run(settings, arguments, stop, parent.ready)
    finally:
        parent.close()


if __name__ == "__main__":
    main()
