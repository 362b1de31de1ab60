"""Stores of which one server takes over for the other: what hosts share when they are several."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import redis

from tests.chaos.stores import Ground, Store
from tests.chaos.tcp import Link, Wires
from tests.support.patience import until_now
from tests.support.postgres_pair import ask, copy_as_standby
from tests.support.redis_pair import FAILOVER_MS, SERVICE, Valkey

DOWN_AFTER_MS: Final = 1000
IN_STEP: Final = "select count(*) > 0 from pg_stat_replication where state = 'streaming' and sync_state = 'sync'"


class ValkeyPair:
    """A master, its replica and their Sentinel, which reach each other through the gateway's wires too: one that is cut
    off from the gateway is cut off from Sentinel, and replaced."""

    def __init__(self, folder: Path, laid: Wires) -> None:
        self._nodes: Final[dict[int, Valkey]] = {}
        """By the port of the wire in front of each: the only address that any of the others knows."""
        self._links: Final[dict[int, Link]] = {}
        for name in ("a", "b"):
            node = Valkey(folder / f"valkey-{name}")
            link = laid.link(node.address)
            node.ask("CONFIG", "SET", "replica-announce-ip", "127.0.0.1", "replica-announce-port", link.port)
            node.ask("CONFIG", "REWRITE")
            self._nodes[link.port], self._links[link.port] = node, link
        master, replica = self._nodes
        self._nodes[replica].ask("REPLICAOF", "127.0.0.1", master)
        self._sentinel: Final = Valkey(folder / "sentinel", config=_watching(master), sentinel=True)
        self._address: Final = laid.link(lambda: ("127.0.0.1", self._master()))
        until_now(self.is_whole)

    @property
    def url(self) -> str:
        """Of the master."""
        return self._nodes[self._master()].url

    @property
    def urls_for_gateway(self) -> list[str]:
        """By Sentinel; and an address that follows the master, as a proxy or a service of a cluster does."""
        return [
            f"redis+sentinel://127.0.0.1:{self._sentinel.port}/{SERVICE}/0",
            f"redis://127.0.0.1:{self._address.port}/0",
        ]

    @property
    def link(self) -> Link:
        """In front of the master."""
        return self._links[self._master()]

    def pids(self) -> list[int]:
        """Of the master."""
        return [self._nodes[self._master()].pid]

    def is_whole(self) -> bool:
        """Whether there is a replica with all of the data that Sentinel would promote."""
        with contextlib.suppress(redis.RedisError, OSError):
            role = self._nodes[self._other(self._master())].ask("ROLE")
            return role[0] == "slave" and role[3] == "connected" and self._sees_replica()
        return False

    def die(self) -> None:
        """The master is killed with -9. Sentinel promotes the other one by itself."""
        self._nodes[self._master()].die()

    def again(self) -> None:
        """Empty, once the other one is the master: Sentinel makes a replica of it."""
        (dead,) = [port for port, node in self._nodes.items() if not node.answers()]
        until_now(lambda: self._master() != dead and self._nodes[self._other(dead)].is_master)
        self._nodes[dead].start()
        until_now(self.is_whole)

    def fail_over(self) -> None:
        """By Sentinel's command. For some seconds the old master takes writes of those it still has connected."""
        before = self._master()
        self._sentinel.ask("SENTINEL", "FAILOVER", SERVICE)
        until_now(lambda: self._master() != before)
        until_now(self.is_whole)

    def stop(self) -> None:
        """All three."""
        for node in (self._sentinel, *self._nodes.values()):
            node.stop()

    def _master(self) -> int:
        _, port = self._sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(port)

    def _other(self, port: int) -> int:
        return next(each for each in self._nodes if each != port)

    def _sees_replica(self) -> bool:
        replicas = [_facts(told) for told in self._sentinel.ask("SENTINEL", "REPLICAS", SERVICE)]
        return any(one["flags"] == "slave" for one in replicas)


def _watching(master: int) -> str:
    return (
        f"sentinel monitor {SERVICE} 127.0.0.1 {master} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {SERVICE} {FAILOVER_MS}\n"
    )


def _facts(told: object) -> dict[str, str]:
    """RESP 2 has pairs in a list, and redis-py may have made a dict of them."""
    return told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))  # type: ignore[index]


class PostgresPair:
    """A primary and its standby, for which every commit waits: what is confirmed outlives the primary."""

    def __init__(self, folder: Path, laid: Wires) -> None:
        self._folders: Final = (folder / "postgres-a", folder / "postgres-b")
        for each in self._folders:
            each.mkdir(mode=0o711)
            each.chmod(0o711)
        first = Store(self._folders[0], "postgres", laid)
        # What a database says goes before what the server's own command line says.
        ask(first, "alter database gateway set synchronous_commit = on")
        copy_as_standby(first, self._folders[1])
        self._nodes: Final = (first, Store(self._folders[1], "postgres", laid))
        self._primary = 0
        self._wait_for_standby()

    @property
    def url(self) -> str:
        """Of the primary, past the wires."""
        return self._nodes[self._primary].url

    @property
    def urls_for_gateway(self) -> list[str]:
        """Of both, through the wires."""
        hosts = ",".join(f"127.0.0.1:{node.link.port}" for node in self._nodes)
        return [f"postgresql://gateway@{hosts}/gateway?target_session_attrs=primary"]

    @property
    def link(self) -> Link:
        """In front of the primary."""
        return self._nodes[self._primary].link

    def pids(self) -> list[int]:
        """Of the primary."""
        return self._nodes[self._primary].pids()

    def is_whole(self) -> bool:
        """Whether the standby has all that was confirmed."""
        return bool(ask(self._nodes[self._primary], IN_STEP))

    def die(self) -> None:
        """The primary and all of its children are killed with -9."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def again(self) -> None:
        """The same primary."""
        self._nodes[self._primary].again()
        until_now(self.is_whole)

    def fail_over(self) -> None:
        """The standby is promoted, as a cluster manager does it, and the old primary made anew as its standby."""
        old, self._primary = self._primary, 1 - self._primary
        new = self._nodes[self._primary]
        ask(new, "select pg_promote(true, 60)")
        self._wait_for("")
        self._nodes[old].stop()
        shutil.rmtree(self._folders[old] / "postgres")
        copy_as_standby(new, self._folders[old])
        self._nodes[old].again()
        self._wait_for_standby()

    def stop(self) -> None:
        """The standby last: a primary that waits for it would not end."""
        for node in (self._nodes[self._primary], self._nodes[1 - self._primary]):
            node.stop()

    def _wait_for_standby(self) -> None:
        self._wait_for("*")
        until_now(self.is_whole)

    def _wait_for(self, standbys: str) -> None:
        ask(self._nodes[self._primary], f"alter system set synchronous_standby_names = '{standbys}'")
        ask(self._nodes[self._primary], "select pg_reload_conf()")


PAIRS: Final[dict[str, Callable[[Path, Wires], Ground]]] = {"postgres": PostgresPair, "valkey": ValkeyPair}
