"""What users share, or what others can reach: OpenAI's one account, and Redis. A running gateway, attacked there."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from gateway.config.key_ring import entry_of
from gateway.stores.redis import open_redis
from gateway.usage.event import encode
from tests.support.events import call, new_id
from tests.support.gateway import Stack, stack
from tests.support.hostile import COMPLETION, Hostile, answered
from tests.support.whole_gateway import settled_rows

BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
STREAM = "usage-attacked"
WITHIN_S = 90.0


def ask(base_url: str, key: str, **headers: str) -> str:
    """Makes one call. Its event id."""
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        data=BODY,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        json.load(answer)
        return str(answer.headers["x-gateway-event-id"])


async def head_at_openai(hostile: Hostile, key: str, **headers: str) -> dict[str, str]:
    """The headers with which OpenAI gets a call that a client makes with these."""
    hostile.answer = answered(COMPLETION)
    event_id = await asyncio.to_thread(ask, hostile.gateway.base_url, key, **headers)
    lines = hostile.heads[-1].decode("latin-1").strip().split("\r\n")[1:]
    found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert found["x-client-request-id"] == event_id
    return found


async def test_users_have_idempotency_keys_of_their_own(running: Stack, hostile: Hostile) -> None:
    other = await asyncio.to_thread(running.make_key, "another-tenant@example.com")
    sent = {"Idempotency-Key": "order-1"}
    heads = [await head_at_openai(hostile, key, **sent) for key in (running.key, running.key, other["key"])]
    mine, again, theirs = (head["idempotency-key"] for head in heads)
    assert mine == again
    assert mine != theirs
    assert "order-1" not in (mine, theirs)


async def test_openai_is_told_the_type_of_a_body_that_the_gateway_has_read(running: Stack, hostile: Hostile) -> None:
    head = await head_at_openai(hostile, running.key, **{"Content-Type": "application/json; charset=utf-7"})
    assert head["content-type"] == "application/json"


@pytest.fixture
def signing(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A gateway with secrets, which nothing writes the stream of to PostgreSQL."""
    secrets = entry_of("one", b"s" * 32)
    with stack(tmp_path, database_url, redis_url, FLUSH__STREAM=STREAM, GATEWAY_SECRETS=secrets) as made:
        made.start(background=False)
        yield made


@pytest.mark.long
async def test_whoever_writes_to_redis_makes_no_row(signing: Stack) -> None:
    """The call's own entry is replaced by a cheaper one, another is copied under a new id, and one is made up: the
    ledger gets the call as it was, once, and nothing else."""
    event_id = await asyncio.to_thread(ask, signing.base_url, signing.key)
    redis: Any = open_redis(signing.env["REDIS_URL"])
    try:
        stream_id, fields = await _wait_for_entry(redis)
        true = json.loads(fields[b"e"])
        copied_id = new_id(Random(1))
        await redis.xdel(STREAM, stream_id)
        await redis.xadd(STREAM, fields | {b"e": json.dumps(true | {"cost_nano": 1, "billed_nano": 1}).encode()})
        await redis.xadd(STREAM, fields | {b"e": fields[b"e"].replace(event_id.encode(), copied_id.encode())})
        made_up = call(signing.user_id, new_id(Random(2)))
        await redis.xadd(STREAM, {b"e": encode(made_up), b"id": made_up.id})
    finally:
        await redis.aclose()
    signing.run("worker")
    (row,) = await settled_rows(signing.env["DATABASE_URL"], 1, within_s=WITHIN_S)
    assert (str(row["id"]), int(row["cost_usd"] * 10**9)) == (event_id, true["cost_nano"])
    assert sorted(await _quarantined(signing, 3)) == ["unsigned", "wrong_mac", "wrong_mac"]
    await settled_rows(signing.env["DATABASE_URL"], 1, within_s=0)


async def _wait_for_entry(redis: Any) -> tuple[bytes, dict[bytes, bytes]]:
    for _ in range(int(WITHIN_S / 0.05)):
        if found := await redis.xrange(STREAM):
            ((stream_id, fields),) = found
            return stream_id, fields
        await asyncio.sleep(0.05)
    raise AssertionError("the keeper has sent nothing")


async def _quarantined(running: Stack, count: int) -> list[str]:
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        for _ in range(int(WITHIN_S / 0.05)):
            rows = await connection.fetch("select kind from usage_quarantine")
            if len(rows) >= count:
                break
            await asyncio.sleep(0.05)
        return [row["kind"] for row in rows]
    finally:
        await connection.close()
