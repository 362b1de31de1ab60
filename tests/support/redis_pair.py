"""Two real Valkeys that replicate, over TCP, and Sentinels that watch them: for failovers as they are.

`tests/chaos/stores.py`'s `Store` is one server on a Unix socket, which can neither be replicated nor watched.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from gateway.embedded import binaries, guard
from tests.support.patience import until_now
from tests.support.servers import free_port

SERVICE: Final = "gateway-redis"
"""What the Sentinels call the pair."""
DOWN_AFTER_MS: Final = 500
FAILOVER_MS: Final = 3000
STOP_S: Final = 30


class Valkey:
    """One `valkey-server` process on a port of loopback, the same after every start; a guard ends it when we end."""

    def __init__(self, folder: Path, *, password: str = "", config: str = "", sentinel: bool = False) -> None:
        folder.mkdir(parents=True)
        self.folder: Final = folder
        self.port: Final = free_port()
        self.password: Final = password
        self._sentinel: Final = sentinel
        self._config: Final = folder / "valkey.conf"
        own = f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
        if password:
            own += f"requirepass {password}\n"
        if not sentinel:
            own += 'save ""\nappendonly no\nmaxmemory-policy noeviction\nrepl-diskless-sync-delay 0\n'
            own += f"masterauth {password}\n" if password else ""
        self._config.write_text(own + config)
        self.pid = 0
        self._guard: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> tuple[str, int]:
        """For a `Link`."""
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """For REDIS_URL."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers. Its file of settings keeps what Sentinel or REPLICAOF wrote with CONFIG REWRITE."""
        program = binaries.find_valkey().path
        command = [str(program), str(self._config), *(["--sentinel"] if self._sentinel else [])]
        with (self.folder / "log").open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(guard.__file__), str(int(signal.SIGTERM)), "10", "-1", "-1", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        self.pid = int(self._guard.stdout.readline())
        until_now(self.answers)

    def answers(self) -> bool:
        """Whether it takes commands now."""
        with contextlib.suppress(redis.RedisError):
            return bool(self.ask("PING"))
        return False

    def ask(self, *command: str | int) -> Any:
        """One command to this server, whoever is the master."""
        with redis.Redis(port=self.port, password=self.password or None, decode_responses=True) as client:
            return client.execute_command(*command)

    @property
    def is_master(self) -> bool:
        """What it thinks of itself."""
        return bool(self.ask("ROLE")[0] == "master")

    def follow(self, master: "Valkey") -> None:
        """Becomes its replica, and keeps its clients; returns when it has all that the master has."""
        self.ask("REPLICAOF", "127.0.0.1", master.port)
        until_now(lambda: self.ask("ROLE")[3] == "connected")

    def lead(self) -> None:
        """Becomes a master, as it is."""
        self.ask("REPLICAOF", "NO", "ONE")

    def die(self) -> None:
        """As for the worst of reasons."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def hang(self) -> None:
        """It answers nobody and its connections stay; `go_on` ends that."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """After `hang`."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """In order; again does nothing."""
        if self._guard is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.go_on()
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        self._guard.wait(STOP_S)
        self._guard = None


class RedisPair:
    """A master, its replica, and the Sentinels (none where none were asked for)."""

    def __init__(self, first: Valkey, second: Valkey, sentinels: list[Valkey]) -> None:
        self.first: Final = first
        self.second: Final = second
        self.sentinels: Final = sentinels

    @property
    def master(self) -> Valkey:
        """Whoever takes writes now."""
        return next(each for each in (self.first, self.second) if each.answers() and each.is_master)

    @property
    def replica(self) -> Valkey:
        """The other one."""
        return self.second if self.master is self.first else self.first

    @property
    def sentinel_url(self) -> str:
        """For REDIS_URL: the pair as its Sentinels know it."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        login = f":{self.first.password}@" if self.first.password else ""
        own = self.sentinels[0].password
        return f"redis+sentinel://{login}{hosts}/{SERVICE}/0" + (f"?sentinel_password={own}" if own else "")

    def switch_over(self) -> None:
        """The replica becomes the master and the other way round, as an operator does it: nobody is cut off."""
        old, new = self.master, self.replica
        new.lead()
        old.follow(new)

    def fail_over(self) -> None:
        """Kills the master; returns when the Sentinels have made the replica the master. `heal` brings it back."""
        old, new = self.master, self.replica
        old.die()
        until_now(lambda: new.is_master)

    def heal(self) -> None:
        """Starts whoever is dead; with Sentinels it becomes the replica of the other one."""
        for each in (self.first, self.second):
            if not each.answers():
                each.start()
        if self.sentinels:
            until_now(lambda: sorted(each.is_master for each in (self.first, self.second)) == [False, True])
            replica = self.replica
            until_now(lambda: replica.ask("ROLE")[3] == "connected")

    def stop(self) -> None:
        """All of them, the Sentinels first."""
        for each in (*self.sentinels, self.second, self.first):
            each.stop()


@contextmanager
def redis_pair(
    folder: Path, *, sentinels: int = 0, password: str = "", sentinel_password: str = ""
) -> Iterator[RedisPair]:
    """A pair that replicates; with `sentinels` (1 or 3) also those, who all know each other and the replica."""
    with contextlib.ExitStack() as stack:
        first = Valkey(folder / "first", password=password)
        stack.callback(first.stop)
        second = Valkey(folder / "second", password=password)
        stack.callback(second.stop)
        second.follow(first)
        watchers = []
        for i in range(sentinels):
            watcher = Valkey(
                folder / f"sentinel-{i}",
                password=sentinel_password,
                config=_sentinel_config(first, sentinels // 2 + 1, sentinel_password),
                sentinel=True,
            )
            stack.callback(watcher.stop)
            watchers.append(watcher)
        for watcher in watchers:
            until_now(lambda watcher=watcher: _knows_all(watcher, sentinels))  # type: ignore[misc]
        yield RedisPair(first, second, watchers)


def _sentinel_config(master: Valkey, quorum: int, own_password: str) -> str:
    lines = [
        f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {quorum}",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} {FAILOVER_MS}",
    ]
    if master.password:
        lines.append(f"sentinel auth-pass {SERVICE} {master.password}")
    if own_password:
        lines.append(f"sentinel sentinel-pass {own_password}")
    return "\n".join(lines) + "\n"


def _knows_all(watcher: Valkey, sentinels: int) -> bool:
    told = watcher.ask("SENTINEL", "MASTER", SERVICE)
    facts = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
    others, replicas = int(facts["num-other-sentinels"]), int(facts["num-slaves"])
    return others == sentinels - 1 and replicas == 1
