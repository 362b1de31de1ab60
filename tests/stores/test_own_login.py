"""A whole gateway on a login that owns nothing: a member of `service_role`, as docs/schema.md recommends. Its processes
have logins of their own, which may do less.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import openai
import pytest

from tests.conftest import admin
from tests.meetings.daily_lives import ended, joined, started
from tests.meetings.test_webhooks import post, rows, signed, until_done
from tests.support.gateway import Stack, stack
from tests.support.servers import on_database
from tests.support.whole_gateway import own_logins, row_of

pytestmark = pytest.mark.long


@pytest.fixture
def modest(redis_url: str, postgres_dsn: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    login, name = f"app_{uuid4().hex[:8]}", database_url.split("?")[0].rsplit("/", 1)[1]
    asyncio.run(admin(postgres_dsn, f"create role {login} login", f"grant service_role, gateway_worker to {login}"))
    ring = "a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    environ = {"FLUSH__STREAM": f"usage-{uuid4().hex}", "ROOMS_KEYS": ring} | asyncio.run(own_logins(database_url))
    try:
        with stack(tmp_path, on_database(postgres_dsn, name, login), redis_url, **environ) as made:
            made.start()
            yield made
    finally:
        asyncio.run(admin(postgres_dsn, f"drop role {login}"))


async def test_everyday_work_needs_no_owner(modest: Stack) -> None:
    with openai.OpenAI(base_url=modest.base_url, api_key=modest.key, max_retries=0) as client:
        answer = await asyncio.to_thread(
            client.embeddings.with_raw_response.create, model="text-embedding-3-small", input="x"
        )
    row = await row_of(modest, answer.headers["x-gateway-event-id"])
    assert row["evidence"] == "reported"
    for event in (started("m", "r", 0), joined("s", "r", 1), ended("m", "r", 0, 9)):
        assert (await post(modest, event.body, signed(event.body)))[0] == 200
    await until_done(modest, "-", 3)
    assert [row["status"] for row in await rows(modest, "select status from meetings")] == ["ended"]
    for command in (
        ("audit", "--grace", "0"),
        ("budgets", "set", "--user", "app@example.com", "--limit", "5", "--period", "month"),
        ("credits", "add", "app@example.com", "5"),
        ("meetings", "list"),
        ("daily", "backfill", "--from", "2026-01-01"),
        ("retention", "--participants-after", "0", "--apply"),
        ("rooms", "rotate-key"),
        ("report", "usage"),
    ):
        done = await asyncio.to_thread(modest.command, *command)
        assert done.returncode == 0, (command, done.stderr.decode(), done.stdout.decode())
    looked = await asyncio.to_thread(modest.command, "doctor", "--json")
    assert [one for one in json.loads(looked.stdout) if one["what"] == "postgres" and one["level"] == "fail"] == []
