"""`serve` starts while Redis or PostgreSQL is away, where its data folder has served with them before."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import openai
import pytest

from gateway.config.settings import Settings
from gateway.embedded import Embedded
from gateway.processes import seen_stores
from gateway.processes.preflight import StoreAway, may_start
from gateway.stores.migrator import load
from gateway.stores.redis import open_redis
from tests.chaos.tcp import Link, Wires, wires
from tests.doctor.doctors import settings
from tests.support.gateway import PATIENT, Stack, stack
from tests.support.patience import ENDS_S, until
from tests.support.whole_gateway import settled_rows

MODEL = "gpt-4o-mini"
SQL = "postgresql://u:SECRET@127.0.0.1:1/app"
REDIS = "redis://:SECRET@127.0.0.1:1/0"


def configured(folder: Path, **changes: Any) -> Settings:
    return settings(**{"database_url": SQL, "redis_url": REDIS, "gateway_data_dir": folder, **changes})


def test_a_folder_knows_the_stores_it_has_served_with(tmp_path: Path) -> None:
    assert not seen_stores.is_known(configured(tmp_path))
    seen_stores.remember(configured(tmp_path))
    assert seen_stores.is_known(configured(tmp_path))
    assert "SECRET" not in (tmp_path / seen_stores.NAME).read_text()
    for changes in (
        {"database_url": SQL.replace("app", "other")},
        {"redis_url": REDIS.replace(":1/", ":2/")},
        {"limits_redis_url": REDIS},
        {"stripe_secret_key": "sk_test_1"},  # another set of vendors may not use every database
    ):
        assert not seen_stores.is_known(configured(tmp_path, **changes))
    assert seen_stores.is_known(configured(tmp_path, redis_url=REDIS.replace("SECRET", "another")))
    assert not seen_stores.is_known(configured(tmp_path / "another"))


@pytest.mark.parametrize(("schema", "known"), [("20200101000000", False), ("29990101000000", True), (None, False)])
def test_a_database_must_have_had_this_versions_migrations(tmp_path: Path, schema: str | None, known: bool) -> None:
    seen_stores.remember(configured(tmp_path))
    path = tmp_path / seen_stores.NAME
    path.write_text(path.read_text().replace(load()[-1].version, schema) if schema else "torn")
    assert seen_stores.is_known(configured(tmp_path)) is known


async def test_what_was_never_seen_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.processes.preflight.KNOWN_WAIT_S", 0.0)
    said: list[str] = []
    with pytest.raises(StoreAway, match="postgres is not there"):
        await may_start(configured(tmp_path), 0, asyncio.Event(), said.append)
    seen_stores.remember(configured(tmp_path))
    assert not await may_start(configured(tmp_path), 120, asyncio.Event(), said.append)
    assert "starting without it" in said[-1]
    with pytest.raises(StoreAway, match="postgres is not there"):  # the one that runs knows its keys
        await may_start(configured(tmp_path), 0, asyncio.Event(), said.append, takes_over=True)
    assert "SECRET" not in "".join(said)


class Wired(NamedTuple):
    """A gateway that has been started and stopped, and what lies between it and its stores."""

    stack: Stack
    wires: Wires
    links: dict[str, Link]

    def start_again(self) -> None:
        """Returns when it serves; it says which store it lacks."""
        self.stack.serve = self.stack.run("serve", module=PATIENT)
        self.stack.serve.wait_for("serving http")
        assert "starting without it, as it was seen from this folder before" in self.stack.serve.output()

    def readiness(self, port: int) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=ENDS_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())


@pytest.fixture
def wired(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Wired]:
    parts = urlsplit(database_url)
    options = parse_qs(parts.query)
    with wires() as laid:
        postgres = laid.link(Path(options["host"][0]) / f".s.PGSQL.{options['port'][0]}")
        redis = laid.link(Path(unquote(urlsplit(redis_url).path)))
        dsn = f"postgresql://{parts.username}@127.0.0.1:{postgres.port}{parts.path}"
        with stack(tmp_path, dsn, f"redis://127.0.0.1:{redis.port}/0") as made:
            made.start()
            assert made.serve.stop() == 0
            yield Wired(made, laid, {"postgres": postgres, "redis": redis})


async def ask(running: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as client:
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])


@pytest.mark.long
async def test_redis_is_away(wired: Wired, database_url: str) -> None:
    running = wired.stack
    wired.wires.set(wired.links["redis"], "refuse")
    await asyncio.to_thread(wired.start_again)
    for _ in range(3):
        await ask(running)
    status, said = wired.readiness(running.admin_port)
    assert (status, said["processes"]["keeper"]["waits_for"]) == (200, "redis")
    assert wired.readiness(running.port) == (200, {"status": "ok"})
    wired.wires.set(wired.links["redis"], "pass")
    assert len(await settled_rows(database_url, 3)) == 3
    await asyncio.to_thread(running.serve.wait_for, "PostgreSQL and Redis are there, and fit")


@pytest.mark.long
async def test_postgresql_is_away(wired: Wired, database_url: str) -> None:
    """No key is known to a process that has just started, so all are refused, and nobody is sent here."""
    running = wired.stack
    wired.wires.set(wired.links["postgres"], "refuse")
    await asyncio.to_thread(wired.start_again)
    with pytest.raises(openai.InternalServerError) as refused:
        await ask(running)
    assert refused.value.status_code == 503
    for port in (running.port, running.admin_port):
        status, said = wired.readiness(port)
        assert (status, "PostgreSQL has not answered since the start" in json.dumps(said)) == (503, True)
    wired.wires.set(wired.links["postgres"], "pass")
    await until(lambda: wired.readiness(running.port)[0] == 200)
    await ask(running)
    assert len(await settled_rows(database_url, 1)) == 1


@pytest.mark.long
async def test_what_comes_back_and_is_not_fit_ends_it(wired: Wired, embedded: Embedded) -> None:
    """As it would have been refused at the start."""
    running = wired.stack
    wired.wires.set(wired.links["redis"], "refuse")
    await asyncio.to_thread(wired.start_again)
    async with open_redis(embedded.redis_url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        try:
            wired.wires.set(wired.links["redis"], "pass")
            assert await asyncio.to_thread(running.serve.popen.wait, ENDS_S) == 1
        finally:
            await redis.config_set("maxmemory-policy", "noeviction")
    assert "set `maxmemory-policy noeviction`" in running.serve.output()
