"""Failovers of Redis under a whole gateway, also one that cuts nobody off: no restart is needed, no call is lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.stores.redis import open_redis
from tests.chaos.stores import Store
from tests.chaos.tcp import Link, Wires, wires
from tests.support.gateway import Stack, stack
from tests.support.patience import until
from tests.support.redis_pair import redis_pair
from tests.support.whole_gateway import settled_rows

MODEL = "gpt-4o-mini"
WAIT_S = 120.0


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """The Redis of before and the one of after."""
    made = []
    for name in ("before", "after"):
        folder = tmp_path / name
        folder.mkdir(mode=0o711)
        made.append(Store(folder, "valkey"))
    yield made[0], made[1]
    for store in made:
        store.stop()


@pytest.fixture
def gateway_with_standby(
    tmp_path: Path, database_url: str, masters: tuple[Store, Store]
) -> Iterator[tuple[Stack, Wires, Link]]:
    tmp_path.chmod(0o711)
    with wires() as laid:
        link = laid.link(masters[0].socket)
        quick = {"JOURNAL__CONFIRM_AFTER_S": "0.5", "LIMITS__RECOUNT_S": "0.5"}
        with stack(tmp_path, database_url, masters[0].url_through(link.port), **quick) as running:
            running.start()
            yield running, laid, link


async def test_budgets_and_rows_go_on(
    gateway_with_standby: tuple[Stack, Wires, Link], masters: tuple[Store, Store], database_url: str
) -> None:
    running, _, link = gateway_with_standby
    budget = ("budgets", "set", "--user", running.user_id, "--limit", "5", "--period", "month")
    assert (await asyncio.to_thread(running.command, *budget)).returncode == 0
    client = openai.AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0)
    answered = 0

    async def ask() -> None:
        nonlocal answered
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
        answered += 1

    async with client:
        for _ in range(5):
            await ask()
        old: Any = open_redis(masters[0].url)
        async with old:
            await old.execute_command("REPLICAOF", "127.0.0.1", "1")
        link.lead_to(masters[1].socket)
        async with asyncio.timeout(WAIT_S):
            # The first may be refused: a hard budget needs Redis. Then they go on by themselves.
            while answered < 10:
                try:
                    await ask()
                except openai.InternalServerError:
                    await asyncio.sleep(0.1)
    rows = await settled_rows(database_url, answered)
    assert len(rows) == answered


async def test_a_master_that_dies_behind_sentinels(tmp_path: Path, database_url: str) -> None:
    """What its replica had not got is sent again: the keeper asks PostgreSQL, not Redis."""
    quick = {"JOURNAL__CONFIRM_AFTER_S": "0.5"}
    with (
        redis_pair(tmp_path / "pair", sentinels=3, password="master", sentinel_password="sentinels") as pair,
        stack(tmp_path, database_url, pair.sentinel_url, **quick) as running,
    ):
        await asyncio.to_thread(running.start)
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as client:
            for number in range(15):
                if number == 5:
                    pair.master.die()
                if number == 10:
                    await until(lambda: pair.second.is_master)
                await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
        assert len(await settled_rows(database_url, 15)) == 15
        audited = await asyncio.to_thread(running.command, "audit", "--all", "--grace", "0")
        assert audited.returncode == 0, audited.stdout.decode()
