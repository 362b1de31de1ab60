"""One process of the gateway, `python -m gateway.child <kind> …`, started by `processes.Child`. Not for people.

An entry of its own, not a command: a proxy that is started again after a crash must not wait for the imports of the
whole command line.
"""

import argparse
import asyncio
import gc
from typing import Literal, get_args

import uvloop

from gateway import app
from gateway.core.config import Settings
from gateway.core.log import configure
from gateway.core.metrics import Status
from gateway.processes import Parent, Ready, listen, stop_with_parent
from gateway.sandbox import server as sandbox

Kind = Literal["proxy", "keeper", "worker", "sandbox"]


def main() -> None:
    """Returns when the process has stopped in order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    configure()
    calm_gc()
    uvloop.run(_run(options.kind, Settings(), options.ready_fd, options.slot, options.host, options.port))


def calm_gc() -> None:
    """What lives as long as the process is never looked at again; the rest rarely makes cycles (measured: 8 % of the
    CPU of a call went into looking)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _run(kind: Kind, settings: Settings, ready_fd: int, slot: int, host: str, port: int) -> None:
    stop = asyncio.Event()
    stop_with_parent(stop)
    parent = Parent(ready_fd)
    try:
        await _work(kind, settings, slot, host, port, stop, parent.ready)
    finally:
        parent.close()


async def _work(
    kind: Kind, settings: Settings, slot: int, host: str, port: int, stop: asyncio.Event, ready: Ready
) -> None:
    if kind == "proxy":
        await app.run_proxy(settings, slot, listen(host, port), stop, ready)
    elif kind == "keeper":
        await app.run_keeper(settings, stop, ready)
    elif kind == "worker":
        await app.run_worker(settings, stop, ready)
    else:
        kept = settings.gateway_data_dir / "sandbox"
        stand_ins = await sandbox.start(host, port, keys_file=kept / "unkey.json", stripe_file=kept / "stripe.json")
        ready(Status)
        await stop.wait()
        await stand_ins.close()


if __name__ == "__main__":
    main()
