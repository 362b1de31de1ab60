"""The embedded servers of one data folder, started and stopped together. Opens no connections."""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.embedded import location, lock, postgres, valkey
from gateway.embedded.errors import EmbeddedError
from gateway.embedded.server import Recipe, RunningServer, run

ALL: Final = frozenset({"postgres", "valkey"})


class Embedded:
    """Servers that run. Made by `start` and `start_sync`; belongs to no event loop; a context manager stops them."""

    def __init__(self, servers: Mapping[str, RunningServer], lock_fd: int) -> None:
        self._servers: Final = dict(servers)
        self._lock_fd: int | None = lock_fd

    @property
    def database_url(self) -> str:
        """DSN of the database `gateway` for its superuser, over a Unix socket; for asyncpg and libpq alike."""
        return self._servers["postgres"].url

    @property
    def redis_url(self) -> str:
        """URL of Valkey's database 0, over a Unix socket, for `redis.asyncio.from_url`."""
        return self._servers["valkey"].url

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the servers by name (`postgres`, `valkey`)."""
        return {name: server.pid for name, server in self._servers.items()}

    def failure(self) -> str | None:
        """Why a server has ended without being told to, with the end of its log; None while all is well."""
        if self._lock_fd is None:
            return None
        return next(filter(None, (server.failure() for server in self._servers.values())), None)

    def stop_sync(self) -> None:
        """Stops the servers cleanly and releases the data folder; idempotent. Raises EmbeddedError."""
        if self._lock_fd is None:
            return
        for server in self._servers.values():
            server.release()  # all at once, then wait for each
        for server in self._servers.values():
            server.stop()
        os.close(self._lock_fd)
        self._lock_fd = None

    async def stop(self) -> None:
        """`stop_sync` without blocking the event loop."""
        await asyncio.to_thread(self.stop_sync)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_sync()


async def start(
    data_dir: Path, *, say: Callable[[str], None], fsync: bool = True, names: AbstractSet[str] = ALL
) -> Embedded:
    """Starts the servers of `data_dir` and returns when they answer; stop them with `await .stop()`.

    `say` gets a line whenever something takes a moment; it may be called from another thread. `fsync=False` is for
    data that may be lost. Raises EmbeddedError, and AlreadyRunning where the folder is in use. Being cancelled stops
    what has been started.
    """
    abort = threading.Event()
    work = asyncio.ensure_future(
        asyncio.to_thread(start_sync, data_dir, say=say, fsync=fsync, names=names, abort=abort)
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        abort.set()
        with contextlib.suppress(EmbeddedError):
            await (await work).stop()
        raise


def start_sync(
    data_dir: Path,
    *,
    say: Callable[[str], None],
    fsync: bool = True,
    names: AbstractSet[str] = ALL,
    abort: threading.Event | None = None,
) -> Embedded:
    """`start`, blocking; for tests and threads. `abort` ends the waiting with an EmbeddedError."""
    if not names or not names <= ALL:
        raise ValueError(f"names must be some of {sorted(ALL)}, not {sorted(names)}")
    data_dir = Path(os.path.abspath(data_dir))
    try:
        if not data_dir.exists():
            # As root the servers' user must be able to pass through; listing it stays with us.
            data_dir.parent.mkdir(parents=True, exist_ok=True)
            data_dir.mkdir(mode=0o700, exist_ok=True)
            data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        lock_fd = lock.take(data_dir, say)
    except OSError as error:
        raise EmbeddedError(f"The data folder {data_dir} cannot be used: {error}.") from error
    try:
        servers = _run_all(data_dir, say, fsync, names, lock_fd, abort or threading.Event())
    except BaseException:
        os.close(lock_fd)
        raise
    return Embedded(servers, lock_fd)


def _run_all(
    data_dir: Path,
    say: Callable[[str], None],
    fsync: bool,
    names: AbstractSet[str],
    lock_fd: int,
    abort: threading.Event,
) -> dict[str, RunningServer]:
    """Starts one server after the other; when one fails, those before it are stopped."""
    running: dict[str, RunningServer] = {}
    try:
        found = location.find(data_dir, say)
        recipes: list[Recipe] = []
        if "valkey" in names:
            recipes.append(valkey.recipe(found, data_dir, fsync=fsync))
        if "postgres" in names:
            recipes.append(postgres.recipe(found, data_dir, say, fsync=fsync))
        for recipe in recipes:
            running[recipe.name] = run(recipe, found, lock_fd, abort)
    except BaseException as error:
        for server in running.values():
            server.stop()
        if isinstance(error, OSError):
            raise EmbeddedError(f"The embedded servers could not be started in {data_dir}: {error}.") from error
        raise
    return running


@contextlib.contextmanager
def ephemeral(names: AbstractSet[str] = ALL, *, parent: Path | None = None) -> Iterator[Embedded]:
    """Servers on a temporary folder (in `parent` if given), without durability; both are gone afterwards. For tests."""
    with tempfile.TemporaryDirectory(prefix="gateway-", dir=parent, ignore_cleanup_errors=False) as folder:
        data_dir = Path(folder)
        if os.geteuid() == 0:
            data_dir.chmod(0o711)
        with start_sync(data_dir, say=_say_nothing, fsync=False, names=names) as embedded:
            yield embedded


def _say_nothing(_line: str) -> None:
    """For callers without anyone to tell."""
