"""What chaos runs on: a PostgreSQL and a Valkey of its own that can be killed and started again, and a gateway that is
started again as a supervisor would. Between them lie wires that can be cut. The sandbox is never killed: it keeps the
truth.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from gateway import embedded
from gateway.stores.migrator import migrate
from tests.chaos.payers import make_payer
from tests.chaos.tcp import Link, Wires, wires
from tests.support.gateway import Process, Stack, children, stack

STORES: Final = {"postgres": signal.SIGQUIT, "valkey": signal.SIGKILL}
"""How each dies: an immediate stop, and no stop at all."""
START_S: Final = 180.0
QUICK: Final = {
    "JOURNAL__CONFIRM_AFTER_S": "1",
    "BILLING__WINDOW_S": "5",
    "BILLING__GRACE_S": "1",
    "BILLING__INTERVAL_S": "1",
}
"""Settings under which everything that waits comes around within a run."""


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

    @property
    def socket(self) -> Path:
        """Where it listens."""
        parts = urlsplit(self.url)
        if self.name == "valkey":
            return Path(unquote(parts.path))
        options = parse_qs(parts.query)
        return Path(options["host"][0]) / f".s.PGSQL.{options['port'][0]}"

    def url_through(self, port: int) -> str:
        """The same server behind a wire on this port."""
        parts = urlsplit(self.url)
        if self.name == "valkey":
            return f"redis://127.0.0.1:{port}/0"
        return f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"

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


class Deployment:
    """The gateway and all it stands on."""

    def __init__(self, stores: dict[str, Store], links: dict[str, Link], laid: Wires, running: Stack) -> None:
        self.stores: Final = stores
        self.links: Final = links
        """Between the gateway and what it stands on: `postgres`, `valkey`, and `openai` once it is open."""
        self.wires: Final = laid
        self.stack: Final = running
        self.second = ""
        """Another user's key."""
        self.second_user_id = ""
        self.worker: Process
        self._supervisor: asyncio.Task[None] | None = None
        self.restarts = 0
        self.last_words: Final[list[str]] = []
        """The last line of each `serve` that ended: killed, or refused to start."""

    def open(self) -> None:
        """Everything runs when this returns."""
        asyncio.run(migrate(self.stores["postgres"].url))
        self.stack.prepare()
        self.links["openai"] = self.wires.link(("127.0.0.1", self.stack.sandbox_port))
        upstream = urlsplit(self.stack.env["OPENAI_BASE_URL"])
        behind = upstream._replace(netloc=f"127.0.0.1:{self.links['openai'].port}")
        self.stack.env["OPENAI_BASE_URL"] = behind.geturl()
        self.stack.serve = self.stack.run("serve", "--workers", "2")
        self.stack.serve.wait_for("serving http")
        second = self.stack.make_key("second@example.com")
        self.second, self.second_user_id = second["key"], second["user_id"]
        for user_id in (self.stack.user_id, second["user_id"]):
            asyncio.run(make_payer(self.stack, self.stores["postgres"].url, user_id))
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
            return [pid for pid, line in below.items() if f"gateway.processes.child {kind}" in line]
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
def open_deployment(folder: Path, seed: int) -> Iterator[Deployment]:
    """Everything is gone when the context ends, whatever was done to it."""
    folder.chmod(0o711)
    stores = {name: Store(folder, name) for name in STORES}
    try:
        with wires() as laid, contextlib.ExitStack() as running_stack:
            links = {name: laid.link(store.socket) for name, store in stores.items()}
            urls = [stores[name].url_through(links[name].port) for name in ("postgres", "valkey")]
            environ = QUICK | {"FLUSH__STREAM": f"usage-{seed}"}
            running = running_stack.enter_context(stack(folder, *urls, **environ))
            made = Deployment(stores, links, laid, running)
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
