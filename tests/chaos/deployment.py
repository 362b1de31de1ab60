"""What chaos runs on: a PostgreSQL and a Valkey of its own that can be killed and started again, and a gateway, on one
host or several, that is started again as a supervisor would. The sandbox is never killed: it keeps the truth.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.stores.migrator import migrate
from tests.chaos.pairs import PAIRS
from tests.chaos.payers import make_payer
from tests.chaos.stores import STORES, Ground, Store
from tests.chaos.tcp import Link, Wires, wires
from tests.support.gateway import Process, Stack, children, stack

START_S: Final = 180.0
ANSWER_S: Final = 5.0
PROXIES: Final = 2
"""In all."""
KINDS: Final = ("parent", "proxy", "keeper", "worker", "extra")
QUICK: Final = {
    "JOURNAL__CONFIRM_AFTER_S": "1",
    "BILLING__WINDOW_S": "5",
    "BILLING__GRACE_S": "1",
    "BILLING__INTERVAL_S": "1",
}
"""Settings under which everything that waits comes around within a run."""
QUICK_HOSTS: Final = {
    "UPSTREAM__TOTAL_S": "25",
    "JOURNAL__OPEN_MAX_S": "26",
    "HOSTS__GRACE_S": "4",
    "HOSTS__RENEW_S": "2",
    "HOSTS__SWEEP_S": "1",
}
"""The same, where one host of several is lost. One that is only away for longer than this is taken for lost as well:
what it knows itself comes later, as corrections."""


class Host:
    """A gateway on a data folder of its own: `serve` with its children, and a worker beside it."""

    def __init__(self, running: Stack, proxies: int) -> None:
        self.stack: Final = running
        self._proxies: Final = proxies
        self._next: Process | None = None
        """A `serve` that takes over."""
        self.worker: Process | None = None
        """Beside `serve`, once it is open."""
        self.restarts = 0
        self.last_words: Final[list[str]] = []
        """The last line of each `serve` that ended: killed, or refused to start."""

    def open(self) -> None:
        """Everything runs when this returns."""
        self.stack.serve = self._serve()
        self.stack.serve.wait_for("serving http")
        self.worker = self.stack.run("worker")

    def pids_of(self, kind: str) -> list[int]:
        """Of serve's children: `proxy`, `keeper` or `worker`; `extra` is the separate worker, `parent` serve itself,
        or two of them while one takes over."""
        if kind == "extra":
            return [self.worker.popen.pid] if self.worker is not None and self.worker.popen.poll() is None else []
        parents = [one.popen.pid for one in (self.stack.serve, self._next) if one and one.popen.poll() is None]
        return parents if kind == "parent" else [pid for parent in parents for pid in _below(parent, kind)]

    def every_pid(self) -> list[int]:
        """Of all of its processes, the parent first."""
        return [pid for kind in KINDS for pid in self.pids_of(kind)]

    def take_over(self) -> bool:
        """A new `serve` takes over from the one that runs, unless another one is at it already."""
        if self._next is not None or self.stack.serve.popen.poll() is not None:
            return False
        self._next = self._serve()
        return True

    def start_again(self) -> None:
        """What has ended, unless it has a successor."""
        if self._next is not None and self._next.popen.poll() is not None:
            self._say_last_words(self._next)
            self._next = None
        if self.stack.serve.popen.poll() is not None:
            if self._next is None:
                self.restarts += 1
                self._say_last_words(self.stack.serve)
            self.stack.serve, self._next = self._next or self._serve(), None
        if not self.pids_of("extra"):
            self.restarts += 1
            self.worker = self.stack.run("worker")

    def _say_last_words(self, ended: Process) -> None:
        self.last_words.append(ended.output().strip().rpartition("\n")[2][:300])

    def kill(self) -> bool:
        """All of its processes at once, as when it loses its power."""
        for pid in (pids := self.every_pid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def is_up(self) -> bool:
        """Whether every process is there."""
        return len(self.pids_of("proxy")) >= self._proxies and bool(self.pids_of("keeper") and self.pids_of("worker"))

    async def is_serving(self) -> bool:
        """Whether its proxies are there, and one answers: to listen is not enough."""
        if len(self.pids_of("proxy")) < self._proxies:
            return False
        try:
            async with asyncio.timeout(ANSWER_S):
                answer, request = await asyncio.open_connection("127.0.0.1", self.stack.port)
                with contextlib.closing(request):  # also where no answer comes in time
                    request.write(b"GET /healthz HTTP/1.0\r\n\r\n")
                    return bool(await answer.read(1))
        except OSError:
            return False

    def _serve(self) -> Process:
        return self.stack.run("serve", "--take-over", "--workers", str(self._proxies))


def _below(parent: int, kind: str) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [pid for pid, line in children(parent).items() if f"gateway.processes.child {kind}" in line]
    return []


class Deployment:
    """The gateway, on one host or several, and all that they share."""

    def __init__(self, stores: dict[str, Ground], laid: Wires, running: Stack) -> None:
        self.stores: Final = stores
        self.wires: Final = laid
        self.stack: Final = running
        """Of the first host, which also has the sandbox and the commands."""
        self.hosts: Final[list[Host]] = []
        self._gone: Final[list[Host]] = []
        self.second = ""
        """Another user's key."""
        self.second_user_id = ""
        self._to_openai: Link

    def open(self, hosts: int) -> None:
        """Everything runs when this returns."""
        asyncio.run(migrate(self.stores["postgres"].url))
        self.stack.prepare()
        self._to_openai = self.wires.link(("127.0.0.1", self.stack.sandbox_port))
        upstream = urlsplit(self.stack.env["OPENAI_BASE_URL"])
        behind = upstream._replace(netloc=f"127.0.0.1:{self._to_openai.port}")
        self.stack.env["OPENAI_BASE_URL"] = behind.geturl()
        second = self.stack.make_key("second@example.com")
        self.second, self.second_user_id = second["key"], second["user_id"]
        for user_id in (self.stack.user_id, second["user_id"]):
            asyncio.run(make_payer(self.stack, self.stores["postgres"].url, user_id))
        for number in range(hosts):
            self.hosts.append(Host(self._stack_of(number), max(1, PROXIES // hosts)))
            self.hosts[-1].open()
        self.stack.control("openai", "POST", "/pace", {"first_s": 0.02, "interval_s": 0.005})

    def _stack_of(self, number: int) -> Stack:
        if number == 0:
            return self.stack
        folder = self.stack.folder / f"host-{number}"
        folder.mkdir()
        made = self.stack.beside(folder)
        redis_urls = self.stores["valkey"].urls_for_gateway
        made.env["REDIS_URL"] = redis_urls[number % len(redis_urls)]
        return made

    def link(self, name: str) -> Link:
        """Between the gateway and `postgres`, `valkey` or `openai`."""
        return self._to_openai if name == "openai" else self.stores[name].link

    def pids_of(self, kind: str) -> list[int]:
        """On every host."""
        return [pid for host in self.hosts for pid in host.pids_of(kind)]

    @property
    def restarts(self) -> int:
        """By the supervisor, on every host."""
        return sum(host.restarts for host in self.hosts)

    @property
    def last_words(self) -> list[str]:
        """On every host."""
        return [line for host in self.hosts for line in host.last_words]

    async def supervise(self) -> None:
        """What has ended is started again, until cancelled."""
        while True:
            for host in self.hosts:
                host.start_again()
            await asyncio.sleep(0.2)

    async def all_up(self) -> None:
        """Until every process is there again and ready. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while not all(host.is_up() for host in self.hosts):
                await asyncio.sleep(0.1)

    async def all_serving(self) -> None:
        """Until every host takes connections with all of its proxies."""
        until_s = time.monotonic() + START_S
        for host in list(self.hosts):
            while not await host.is_serving():
                assert time.monotonic() < until_s, f"it does not serve: {host.stack.serve.output()[-3000:]}"
                await asyncio.sleep(0.1)

    def lose_host(self) -> None:
        """The last host and its disk, for good."""
        host = self.hosts.pop()
        self._gone.append(host)
        host.kill()
        shutil.rmtree(host.stack.env["GATEWAY_DATA_DIR"])

    def close(self) -> None:
        """Whatever was stopped runs, so that it can end; and the hosts after the first have ended."""
        for host in self.hosts:
            for pid in host.every_pid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        for host in (*self._gone, *self.hosts[1:]):
            host.stack.stop()


@contextlib.contextmanager
def open_deployment(folder: Path, seed: int, hosts: int = 1) -> Iterator[Deployment]:
    """Everything is gone when the context ends, whatever was done to it. Several hosts share a pair of each store."""
    folder.chmod(0o711)
    with contextlib.ExitStack() as ending:
        laid = ending.enter_context(wires())
        stores: dict[str, Ground] = {}
        for name in STORES:
            stores[name] = Store(folder, name, laid) if hosts == 1 else PAIRS[name](folder, laid)
            ending.callback(stores[name].stop)
        urls = [stores[name].urls_for_gateway[0] for name in ("postgres", "valkey")]
        environ = QUICK | (QUICK_HOSTS if hosts > 1 else {}) | {"FLUSH__STREAM": f"usage-{seed}"}
        running = ending.enter_context(stack(folder, *urls, **environ))
        made = Deployment(stores, laid, running)
        ending.callback(made.close)
        made.open(hosts)
        yield made


def since(begun: float) -> str:
    """Seconds since the run began, for a log line."""
    return f"{time.monotonic() - begun:7.1f} s"
