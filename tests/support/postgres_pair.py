"""A real PostgreSQL and its streaming standby, for promotions as they are.

Both are `Store`s of `tests/chaos`: they listen on Unix sockets, and `Link`s lead to them over TCP. Where the primary
dies, what it had not sent to the standby is lost with it: replication is asynchronous, as it is by default.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from gateway.embedded import binaries, location
from tests.chaos.stores import Store
from tests.chaos.tcp import Link
from tests.support.patience import until_now


class PostgresPair:
    """Two servers with the same ledger."""

    def __init__(self, primary: Store, standby: Store) -> None:
        self.primary: Final = primary
        """The one that takes writes at first."""
        self.standby: Final = standby
        """The one that follows it, until `promote`."""

    def url_through(self, *links: Link, options: str = "") -> str:
        """For DATABASE_URL: one DSN with all these links as its hosts."""
        parts = urlsplit(self.primary.url)
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in links)
        return f"postgresql://{parts.username}@{hosts}{parts.path}{options}"

    def has_caught_up(self) -> bool:
        """Whether the standby has replayed all that the primary has committed."""
        written = ask(self.primary, "select pg_current_wal_insert_lsn()::text")
        return bool(ask(self.standby, "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written))

    def promote(self) -> None:
        """The standby becomes a primary; returns when it takes writes. The old one, if it lives, is not told."""
        assert ask(self.standby, "select pg_promote(true, 60)")
        until_now(lambda: not ask(self.standby, "select pg_is_in_recovery()"))

    def demote(self, store: Store, *, only_reads: bool = True) -> None:
        """A primary that only reads from now on and keeps its connections: refuses writes with 25006, as a standby."""
        word = "on" if only_reads else "off"
        ask(store, f"alter system set default_transaction_read_only = {word}")
        ask(store, "select pg_reload_conf()")
        until_now(lambda: ask(store, "show default_transaction_read_only") == word)

    def stop(self) -> None:
        """Both."""
        for store in (self.standby, self.primary):
            store.stop()


@contextmanager
def postgres_pair(folder: Path) -> Iterator[PostgresPair]:
    """A primary in `folder/primary` and a standby of it in `folder/standby`, empty but for the database `gateway`."""
    with contextlib.ExitStack() as stack:
        for name in ("primary", "standby"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o711)
        primary = Store(folder / "primary", "postgres")
        stack.callback(primary.stop)
        copy_as_standby(primary, folder / "standby")
        standby = Store(folder / "standby", "postgres")
        stack.callback(standby.stop)
        yield PostgresPair(primary, standby)


def copy_as_standby(primary: Store, folder: Path) -> None:
    """A base backup of `primary` where `Store(folder, "postgres")` looks for its data, told to follow `primary`."""
    data_dir = folder / "postgres"
    data_dir.mkdir(mode=0o711)
    data_dir.chmod(0o711)
    where = location.find(data_dir, lambda _: None)
    target = where.folder / "postgres"
    options = parse_qs(urlsplit(primary.url).query)
    source = ("-h", options["host"][0], "-p", options["port"][0], "-U", str(urlsplit(primary.url).username))
    program = binaries.find_postgres().path.with_name("pg_basebackup")
    subprocess.run(
        [program, *source, "-D", target, "-X", "stream", "-c", "fast", "--no-sync", "-R"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with (target / "postgresql.auto.conf").open("a") as settings:
        settings.write("wal_retrieve_retry_interval = '100ms'\n")  # else a promotion waits for its next try, 5 s
    for lock in target.glob(".s.PGSQL.*"):  # of the primary's socket, which lies beside its data
        lock.unlink()
    for path in (target, *target.rglob("*")):
        if where.user is not None:
            os.chown(path, where.user.uid, where.user.gid, follow_symlinks=False)


def ask(store: Store, query: str, *arguments: object) -> Any:
    """One value from this server, as its superuser."""

    async def fetch() -> Any:
        connection = await asyncpg.connect(store.url)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    return asyncio.run(fetch())
