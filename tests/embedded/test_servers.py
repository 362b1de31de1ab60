"""The embedded servers live exactly as long as whoever started them, keep their data, and let nobody else in."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from gateway import embedded
from tests.embedded.embedded_folders import PATIENCE_S, ROOT, await_end, child, hush, is_gone, reachable_folder
from tests.support.patience import until_now
from tests.support.signals import interrupts_ignored

pytestmark = pytest.mark.long


@pytest.fixture
def new_dir() -> Iterator[Path]:
    """A data folder with nothing in it yet."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A PostgreSQL that has been set up and stopped, to be copied."""
    with reachable_folder() as folder:
        with embedded.start_sync(folder, say=hush, fsync=False, names={"postgres"}):
            pass
        yield folder / "postgres"


@pytest.fixture
def data_dir(cluster: Path, new_dir: Path) -> Path:
    """A data folder in which PostgreSQL has been set up already."""
    subprocess.run(["cp", "-a", cluster, new_dir / "postgres"], check=True)
    return new_dir


async def test_both_drivers_connect_and_nothing_listens_on_tcp(new_dir: Path) -> None:
    servers = await embedded.start(new_dir, say=hush)
    try:
        async with asyncpg.create_pool(servers.database_url, min_size=1) as pool:
            assert await pool.fetchval("show listen_addresses") == ""
            assert await pool.fetchval("show fsync") == "on"
            assert await pool.fetchval("show server_encoding") == "UTF8"
            assert await pool.fetchval("select datcollate from pg_database where datname = current_database()") == "C"
        async with Redis.from_url(servers.redis_url) as redis:
            assert (await redis.config_get("port"))["port"] == "0"
            assert (await redis.config_get("appendonly"))["appendonly"] == "yes"
            assert (await redis.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
        for name in ("postgres", "valkey"):
            assert (new_dir / name).stat().st_mode & 0o077 == 0
        assert servers.failure() is None
    finally:
        await servers.stop()
    await_end(*servers.pids.values())
    assert servers.failure() is None


async def test_data_survive_a_restart(new_dir: Path) -> None:
    said: list[str] = []
    folder = new_dir / "100% ours & new"  # what a URL would have to escape
    servers = await embedded.start(folder, say=said.append)
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute("create table kept as select 7 as n")
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.set("kept", "7")
    await servers.stop()
    connection.terminate()
    again = await embedded.start(folder, say=said.append)
    try:
        connection = await asyncpg.connect(again.database_url)
        assert await connection.fetchval("select n from kept") == 7
        await connection.close()
        async with Redis.from_url(again.redis_url) as redis:
            assert await redis.get("kept") == b"7"
    finally:
        await again.stop()
        await again.stop()
    assert len(said) == 1, "only the first start has something to set up"


def test_a_second_start_on_the_same_folder_names_the_first(data_dir: Path) -> None:
    with child(data_dir) as (process, pids):
        with pytest.raises(embedded.AlreadyRunning, match=f"process {process.pid}") as caught:
            embedded.start_sync(data_dir, say=hush, names={"valkey"})
        assert caught.value.pid == process.pid
        assert not any(is_gone(pid) for pid in pids)
        process.terminate()
        await_end(*pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_its_parent(data_dir: Path, number: signal.Signals) -> None:
    with child(data_dir) as (process, pids):
        os.killpg(process.pid, number)  # as a terminal does it: to the whole group
        process.wait(PATIENCE_S)
        # At once: the new start has to wait for the old servers by itself.
        with embedded.start_sync(data_dir, say=hush, fsync=False) as servers:
            assert all(is_gone(pid) for pid in pids)
            assert servers.failure() is None
    assert "database system is shut down" in (data_dir / "postgres.log.1").read_text(), "it was not stopped cleanly"


def test_servers_stop_where_interrupts_are_ignored(data_dir: Path) -> None:
    with interrupts_ignored(), child(data_dir) as (process, pids):
        process.terminate()
        process.wait(PATIENCE_S)
        await_end(*pids)
    assert "database system is shut down" in (data_dir / "postgres.log").read_text(), "it was not stopped cleanly"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell a process that its parent has died")
def test_a_server_goes_with_its_guard(data_dir: Path) -> None:
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"valkey"}) as servers:
        server = servers.pids["valkey"]
        guard = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(guard, signal.SIGKILL)
        await_end(server)
        until_now(servers.failure)
        assert "valkey has ended" in str(servers.failure())
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"valkey"}) as servers:
        assert servers.failure() is None


def test_a_pid_file_whose_pid_now_belongs_to_someone_else(data_dir: Path) -> None:
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"postgres"}):
        pid_file = data_dir / "postgres" / "postmaster.pid"
        owner = pid_file.stat()
        lines = pid_file.read_text().splitlines()
    user = owner.st_uid if ROOT else None
    with subprocess.Popen(["sleep", "600"], user=user) as stranger:
        try:
            pid_file.write_text("\n".join([str(stranger.pid), *lines[1:], ""]))
            os.chown(pid_file, owner.st_uid, owner.st_gid)
            with embedded.start_sync(data_dir, say=hush, fsync=False, names={"postgres"}) as servers:
                assert servers.pids["postgres"] != stranger.pid
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_data_of_another_major_version_are_not_touched(data_dir: Path) -> None:
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(embedded.EmbeddedError, match=r"are of PostgreSQL 9, and the server installed here is \d+"):
        embedded.start_sync(data_dir, say=hush, names={"postgres"})


def test_a_first_start_cut_short_is_begun_again(new_dir: Path) -> None:
    (new_dir / "postgres.new-1").mkdir()
    (new_dir / "postgres.new-1" / "PG_VERSION").write_text("16\n")
    with embedded.start_sync(new_dir, say=hush, fsync=False, names={"postgres"}) as servers:
        assert servers.failure() is None
    assert list(new_dir.glob("postgres.new*")) == []


async def test_a_path_too_long_for_a_socket(new_dir: Path) -> None:
    deep = new_dir / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    sockets = []
    for _ in range(2):
        servers = await embedded.start(deep, say=hush, fsync=False)
        await (await asyncpg.connect(servers.database_url)).close()
        async with Redis.from_url(servers.redis_url) as redis:
            assert await redis.ping()
        await servers.stop()
        sockets.append([Path((deep / f"{name}.socket").read_text().strip()) for name in ("postgres", "valkey")])
    assert sockets[0] == sockets[1]
    for folder in sockets[0]:
        assert folder.stat().st_mode & 0o077 == 0
        shutil.rmtree(folder)


async def test_being_cancelled_leaves_nothing_running(new_dir: Path) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(_line: str) -> None:
        loop.call_soon_threadsafe(began.set)

    task = asyncio.create_task(embedded.start(new_dir, say=tell))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with embedded.start_sync(new_dir, say=hush, fsync=False, names={"valkey"}) as servers:
        assert servers.failure() is None


def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    (data_dir / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(embedded.EmbeddedError, match="no_such_setting"):
        embedded.start_sync(data_dir, say=hush)
    with embedded.start_sync(data_dir, say=hush, names={"valkey"}) as servers:
        assert servers.failure() is None, "the one that had started was stopped again"


def test_ephemeral_servers_leave_no_folder() -> None:
    with embedded.ephemeral({"valkey"}) as servers:
        home = Path(servers.redis_url.removeprefix("unix://").partition("?")[0]).parent
        assert home.is_dir()
    assert not home.exists()
