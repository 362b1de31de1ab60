"""The stores that chaos takes away, one server each; pairs are in pairs.py. Before each lies a wire that can be cut."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from gateway import embedded
from tests.chaos.tcp import Link, Wires
from tests.support.gateway import children

STORES: Final = {"postgres": signal.SIGQUIT, "valkey": signal.SIGKILL}
"""How each dies: an immediate stop, and no stop at all."""


class Ground(Protocol):
    """What the gateway stands on, as the killer sees it. Everything here may block."""

    @property
    def url(self) -> str:
        """Of the server that takes writes, past every wire."""

    @property
    def urls_for_gateway(self) -> list[str]:
        """Through the wires; hosts take them in turn."""

    @property
    def link(self) -> Link:
        """The wire in front of the server that takes writes."""

    def pids(self) -> list[int]:
        """Of the server that takes writes, and its own children."""

    def is_whole(self) -> bool:
        """Whether it may lose a server now, and can still go on."""

    def die(self) -> None:
        """As it would for the worst of reasons."""

    def again(self) -> None:
        """What has died runs again when this returns."""

    def fail_over(self) -> None:
        """The other server of a pair takes over, and the first one has joined it again when this returns."""

    def stop(self) -> None:
        """In order."""


class Store:
    """One server on a folder of its own. Nothing is synced to disk: what a kill costs it is part of the fault."""

    def __init__(self, folder: Path, name: str, laid: Wires | None = None) -> None:
        self.name: Final = name
        self._folder: Final = folder / name
        self._running = self._start()
        self._links: Final = [] if laid is None else [laid.link(self.socket)]

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

    @property
    def link(self) -> Link:
        """In front of it."""
        return self._links[0]

    @property
    def urls_for_gateway(self) -> list[str]:
        """Through the wire."""
        return [self.url_through(self.link.port)]

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

    def is_whole(self) -> bool:
        """It is alone: whatever it loses, it has to be started again."""
        return True

    def fail_over(self) -> None:
        """Never asked for."""
        raise NotImplementedError(f"{self.name} is alone")

    def stop(self) -> None:
        """In order, also when it hangs."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in self.pids():
                os.kill(pid, signal.SIGCONT)
        self._running.stop_sync()
