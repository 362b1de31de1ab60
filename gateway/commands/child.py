"""One process of the gateway, started by `processes.Child`. Not for people."""

import asyncio
import gc
from typing import Literal

import uvloop

from gateway import app
from gateway.core.config import Settings
from gateway.processes import listen, say_ready, stop_on_signals, stop_with_parent
from gateway.sandbox import server as sandbox

Kind = Literal["proxy", "keeper", "worker", "sandbox"]


def run(kind: Kind, settings: Settings, *, ready_fd: int, slot: int, host: str, port: int) -> None:
    """Returns when the process has stopped in order."""
    uvloop.run(_run(kind, settings, ready_fd=ready_fd, slot=slot, host=host, port=port))


def calm_gc() -> None:
    """What lives as long as the process is never looked at again; the rest rarely makes cycles (measured: 8 % of the
    CPU of a call went into looking)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _run(kind: Kind, settings: Settings, *, ready_fd: int, slot: int, host: str, port: int) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    stop_with_parent(stop)
    ready = say_ready(ready_fd)
    calm_gc()
    if kind == "proxy":
        await app.run_proxy(settings, slot, listen(host, port), stop, ready)
    elif kind == "keeper":
        await app.run_keeper(settings, stop, ready)
    elif kind == "worker":
        await app.run_worker(settings, stop, ready)
    else:
        stand_ins = await sandbox.start(host, port)
        ready()
        await stop.wait()
        await stand_ins.close()
