"""`serve` with each required thing missing or wrong in turn: a refusal that names it and the fix. And its patience."""

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from gateway.embedded import Embedded, binaries
from gateway.processes.preflight import Patience, stores_are_there
from tests.config.test_problems import SECRET
from tests.doctor.doctors import settings
from tests.support.environment import clean_environment
from tests.support.gateway import Process, Stack
from tests.support.invoke import gateway_here
from tests.support.patience import ENDS_S, until_now
from tests.support.servers import free_port


def environment(database_url: str, redis_url: str, folder: Path) -> dict[str, str]:
    """All that `serve` needs."""
    return clean_environment() | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OPENAI_API_KEY": SECRET,
        "UNKEY_ROOT_KEY": SECRET,
        "GATEWAY_DATA_DIR": str(folder / "data"),
        "GATEWAY_PORT": "0",
        "GATEWAY_ADMIN_PORT": "0",
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
    }


async def refusal(folder: Path, env: dict[str, str], *options: str) -> str:
    """How `gateway serve` ends, which must be by itself with status 1."""
    process = Process(["serve", "--wait", "0", *options], env, folder / "serve.log")
    try:
        assert await asyncio.to_thread(process.popen.wait, ENDS_S) == 1
    finally:
        process.stop()
    said = process.output()
    assert "Traceback" not in said
    assert SECRET not in said
    return said


def with_parts(url: str, **parts: str) -> str:
    """A connection string, changed."""
    return urlsplit(url)._replace(**parts).geturl()


def is_answering(port: int) -> bool:
    """Whether a Valkey says something there, be it that it wants a password."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), ENDS_S) as asking:
        asking.sendall(b"PING\r\n")
        return asking.recv(1) in (b"+", b"-")
    return False


@contextlib.contextmanager
def valkey(folder: Path, port: int, *options: str) -> Iterator[None]:
    """A Valkey on a port of loopback."""
    program = binaries.find_valkey().path
    where = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([program, *where, *options], stdout=subprocess.DEVNULL)
    try:
        until_now(lambda: is_answering(port))
        yield
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def evicting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey with a password, that evicts."""
    port = free_port()
    options = ("--requirepass", "right", "--maxmemory-policy", "allkeys-lru")
    with valkey(tmp_path_factory.mktemp("valkey"), port, *options):
        yield f"redis://:right@127.0.0.1:{port}"


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey that answers, and takes no writes."""
    port = free_port()
    with valkey(tmp_path_factory.mktemp("valkey"), port, "--replicaof", "127.0.0.1 1"):
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node of a Redis Cluster."""
    port = free_port()
    with valkey(tmp_path_factory.mktemp("valkey"), port, "--cluster-enabled", "yes"):
        yield f"redis://127.0.0.1:{port}"


MISTAKES: dict[str, tuple[dict[str, str | None], str]] = {
    "no database": ({"DATABASE_URL": None}, "missing: DATABASE_URL"),
    "no redis": ({"REDIS_URL": None}, "missing: REDIS_URL"),
    "no key of OpenAI's": ({"OPENAI_API_KEY": None}, "missing: OPENAI_API_KEY"),
    "no root key": ({"UNKEY_ROOT_KEY": None}, "missing: UNKEY_ROOT_KEY"),
    "nothing at all": (
        dict.fromkeys(("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "UNKEY_ROOT_KEY")),
        "missing: DATABASE_URL, REDIS_URL, OPENAI_API_KEY, UNKEY_ROOT_KEY. Set them in the environment",
    ),
    "PostgreSQL elsewhere": ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "DATABASE_URL: postgres is not there"),
    "no such database": ({"DATABASE_URL": "{other database}"}, "DATABASE_URL: postgres refuses: InvalidCatalogName"),
    "a PostgreSQL that only reads": ({"DATABASE_URL": "{reading}"}, "cannot execute INSERT in a read-only transaction"),
    "a Redis that only reads": ({"REDIS_URL": "{replica}"}, "REDIS_URL: redis is not there: You can't write against a"),
    "no migrations": ({"DATABASE_URL": "{empty}"}, "migration(s) not applied"),
    "Redis elsewhere": ({"REDIS_URL": "redis://127.0.0.1:1"}, "REDIS_URL: redis is not there"),
    "the wrong password": ({"REDIS_URL": "{wrong password}"}, "REDIS_URL: redis refuses: AuthenticationError"),
    "a Redis that evicts": ({"REDIS_URL": "{evicting}"}, "set `maxmemory-policy noeviction`"),
    "a Redis Cluster": ({"REDIS_URL": "{node}"}, "Redis is a node of a Redis Cluster (cluster_enabled)"),
    "a Redis Cluster by its address": (
        {"REDIS_URL": "redis+cluster://a,b/0"},
        "a Redis Cluster cannot hold the limits",
    ),
    "several Redises": ({"REDIS_URL": "redis://a:1,b:2/0"}, "several hosts"),
    "a taken port": ({"GATEWAY_PORT": "{taken}"}, "GATEWAY_HOST/GATEWAY_PORT: cannot listen on 127.0.0.1:"),
    "a taken admin port": ({"GATEWAY_ADMIN_PORT": "{taken}"}, "GATEWAY_ADMIN_HOST/GATEWAY_ADMIN_PORT: cannot listen"),
    "an address of somebody else's": ({"GATEWAY_HOST": "192.0.2.1"}, "GATEWAY_HOST/GATEWAY_PORT: cannot listen"),
    "a folder that is a file": ({"GATEWAY_DATA_DIR": "{file}"}, "GATEWAY_DATA_DIR: the journal cannot be written"),
    "a slip": ({"KEYS__FRSH_S": "1"}, "did you mean KEYS__FRESH_S?"),
}


AS_PROCESS = ("nothing at all", "no migrations", "a taken port")
"""In a process of their own, which ends with status 1; the others in this one, which is much faster."""


@pytest.fixture
def known(
    tmp_path: Path, database_url: str, empty_database_url: str, evicting: str, replica: str, node: str
) -> Iterator[dict[str, str]]:
    """What the names in `MISTAKES` stand for."""
    (tmp_path / "file").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield {
            "{other database}": with_parts(database_url, path="/no_such_database"),
            "{empty}": empty_database_url,
            "{wrong password}": evicting.replace("right", "wrong"),
            "{evicting}": evicting,
            "{replica}": replica,
            "{node}": node,
            "{reading}": f"{database_url}&options=-c%20default_transaction_read_only%3Don",
            "{taken}": str(taken.getsockname()[1]),
            "{file}": str(tmp_path / "file"),
        }


def with_mistake(mistake: str, env: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """This environment, changed so."""
    changes = MISTAKES[mistake][0]
    kept = {name: value for name, value in env.items() if name not in changes}
    return kept | {name: known.get(value, value) for name, value in changes.items() if value is not None}


@pytest.mark.parametrize("mistake", AS_PROCESS)
async def test_a_mistake_ends_the_command(
    mistake: str, tmp_path: Path, database_url: str, redis_url: str, known: dict[str, str]
) -> None:
    env = with_mistake(mistake, environment(database_url, redis_url, tmp_path), known)
    said = await refusal(tmp_path, env)
    assert "gateway: " in said
    assert MISTAKES[mistake][1] in said


@pytest.mark.parametrize("mistake", [mistake for mistake in MISTAKES if mistake not in AS_PROCESS])
def test_a_mistake_is_named_with_its_fix(
    mistake: str, tmp_path: Path, database_url: str, redis_url: str, known: dict[str, str]
) -> None:
    """No coroutine, as `serve` has an event loop of its own, which must be the main thread's to hear signals."""
    env = with_mistake(mistake, environment(database_url, redis_url, tmp_path), known)
    done = gateway_here(env, "serve", "--wait", "0")
    assert done.status == 1
    assert MISTAKES[mistake][1] in done.error
    assert SECRET not in done.out + done.error + done.noted


async def test_a_full_redis_is_accepted(tmp_path: Path, database_url: str) -> None:
    """The worker that is started here is what empties it."""
    port, said = free_port(), list[str]()
    loaded = settings(database_url=database_url, redis_url=f"redis://127.0.0.1:{port}")
    with valkey(tmp_path, port, "--maxmemory", "1"):
        await stores_are_there(loaded, Patience(0, asyncio.Event(), said.append), said.append)
    (line,) = said
    assert "it takes no writes" in line
    assert "maxmemory" in line


@pytest.mark.long
async def test_a_journal_that_another_gateway_writes(fresh_stack: Stack, tmp_path: Path) -> None:
    await asyncio.to_thread(fresh_stack.start)
    env = fresh_stack.env | {"GATEWAY_PORT": "0", "GATEWAY_ADMIN_PORT": "0"}
    said = await refusal(tmp_path, env)
    assert "GATEWAY_DATA_DIR" in said
    assert "is in use by another gateway" in said


@pytest.mark.long
async def test_what_is_not_there_yet_is_waited_for(tmp_path: Path, database_url: str, embedded: Embedded) -> None:
    port = free_port()
    env = environment(database_url, f"redis://127.0.0.1:{port}", tmp_path)
    process = Process(["serve", "--wait", "30"], env, tmp_path / "serve.log")
    try:
        await asyncio.to_thread(process.wait_for, "waiting for redis (REDIS_URL)")
        with valkey(tmp_path, port):
            await asyncio.to_thread(process.wait_for, "serving http")
            assert process.stop() == 0
    finally:
        process.stop()


async def test_it_can_be_stopped_while_it_waits(tmp_path: Path, database_url: str) -> None:
    env = environment(database_url, "redis://127.0.0.1:1", tmp_path)
    process = Process(["serve", "--wait", "30"], env, tmp_path / "serve.log")
    await asyncio.to_thread(process.wait_for, "waiting for redis")
    assert process.stop() == 0
