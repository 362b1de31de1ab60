"""What chaos runs on: a PostgreSQL and a Valkey of its own that can be killed and started again, and a gateway that is
started again as a supervisor would. The sandbox is never killed: it keeps the truth.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway import embedded
from gateway.edges.migrator import migrate
from tests.stack import Process, Stack, children, stack

STORES: Final = {"postgres": signal.SIGQUIT, "valkey": signal.SIGKILL}
"""How each dies: an immediate stop, and no stop at all."""
START_S: Final = 60.0


class Store:
    """One server on a folder of its own. Nothing is synced to disk: what a kill costs it is part of the fault."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name: Final = name
        self._folder: Final = folder / name
        self._running = self._start()

    def _start(self) -> embedded.Embedded:
        return embedded.start_sync(self._folder, say=lambda _: None, fsync=False, names={self.name})

    @property
    def url(self) -> str:
        """Its connection string, the same after every start."""
        return self._running.database_url if self.name == "postgres" else self._running.redis_url

    def pids(self) -> list[int]:
        """The server and its own children."""
        pid = self._running.pids[self.name]
        return [pid, *children(pid)]

    def die(self) -> None:
        """As it would for the worst of reasons."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._running.pids[self.name], STORES[self.name])

    def again(self) -> None:
        """Starts it on what is left of its data."""
        with contextlib.suppress(embedded.EmbeddedError):
            self._running.stop_sync()
        self._running = self._start()

    def stop(self) -> None:
        """In order."""
        self._running.stop_sync()


class House:
    """The gateway and all it stands on."""

    def __init__(self, stores: dict[str, Store], running: Stack) -> None:
        self.stores: Final = stores
        self.stack: Final = running
        self.second = ""
        """Another user's key."""
        self.worker: Process
        self._supervisor: asyncio.Task[None] | None = None
        self.restarts = 0
        self.last_words: Final[list[str]] = []
        """The last line of each `serve` that ended: killed, or refused to start."""

    def open(self) -> None:
        """Everything runs when this returns."""
        asyncio.run(migrate(self.stores["postgres"].url))
        self.stack.start(workers=2)
        self.second = self.stack.make_key("second@example.com")["key"]
        self.worker = self.stack.run("worker")
        self.stack.control("openai", "POST", "/pace", {"first_s": 0.02, "interval_s": 0.005})

    def pids_of(self, kind: str) -> list[int]:
        """Of serve's children: `proxy`, `keeper` or `worker`; `extra` is the separate worker, `parent` serve itself."""
        if kind == "parent":
            return [self.stack.serve.popen.pid] if self.stack.serve.popen.poll() is None else []
        if kind == "extra":
            return [self.worker.popen.pid] if self.worker.popen.poll() is None else []
        with contextlib.suppress(FileNotFoundError):
            below = children(self.stack.serve.popen.pid)
            return [pid for pid, line in below.items() if f"gateway.child {kind}" in line]
        return []

    async def supervise(self) -> None:
        """What has ended is started again, until cancelled."""
        while True:
            if self.stack.serve.popen.poll() is not None:
                self.restarts += 1
                self.last_words.append(self.stack.serve.output().strip().rpartition("\n")[2][:300])
                self.stack.serve = self.stack.run("serve", "--workers", "2")
            if self.worker.popen.poll() is not None:
                self.restarts += 1
                self.worker = self.stack.run("worker")
            await asyncio.sleep(0.2)

    async def all_up(self) -> None:
        """Until every process is there again and ready. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while not (len(self.pids_of("proxy")) == 2 and self.pids_of("keeper") and self.pids_of("worker")):
                await asyncio.sleep(0.1)


@contextlib.contextmanager
def house(folder: Path, seed: int) -> Iterator[House]:
    """Everything is gone when the context ends, whatever was done to it."""
    folder.chmod(0o711)
    stores = {name: Store(folder, name) for name in STORES}
    try:
        environ = {"FLUSH__STREAM": f"usage-{seed}", "JOURNAL__CONFIRM_AFTER_S": "1"}
        with stack(folder, stores["postgres"].url, stores["valkey"].url, **environ) as running:
            made = House(stores, running)
            try:
                made.open()
                yield made
            finally:
                for kind in ("parent", "extra", "proxy", "keeper", "worker"):
                    for pid in made.pids_of(kind) if hasattr(made, "worker") else []:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGCONT)
    finally:
        for store in stores.values():
            for pid in store.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            store.stop()


def since(begun: float) -> str:
    """Seconds since the run began, for a log line."""
    return f"{time.monotonic() - begun:7.1f} s"
