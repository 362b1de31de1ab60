"""Limits and budgets on a whole gateway with two proxies, as the SDK sees them, and the counters against the ledger."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import openai
import pytest

from gateway.embedded import ephemeral
from gateway.stores.redis import open_redis
from tests.support.gateway import Stack, stack
from tests.support.servers import memory_folder
from tests.support.whole_gateway import settled_rows

pytestmark = pytest.mark.long
MODEL = "gpt-4o-mini"
ASKED: list[Any] = [{"role": "user", "content": "Hello"}]
OUTPUT = 100
# Each call asks for a tier: without one it would be held at the dearest that the project's default may be.
# 100 tokens out at 0.60 USD and at most 36 bytes in at 0.15 USD per million, rounded up generously.
WORST_USD = Decimal("0.00007")
ROUND_S = 5.0
AT_ONCE = {"first_s": 0.0, "interval_s": 0.0}


@pytest.fixture
def limited(redis_url: str, database_url: str, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Stack]:
    environ = {
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "KEYS__FRESH_S": "0.2",
        "LIMITS__RECOUNT_S": "0.2",
        "JOURNAL__CONFIRM_AFTER_S": "0.3",
        **getattr(request, "param", {}),
    }
    with stack(tmp_path, database_url, redis_url, **environ) as made:
        made.start(workers=2)
        yield made


def client(running: Stack, key: str | None = None) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=running.base_url, api_key=key or running.key, max_retries=0)


def admin(running: Stack, *arguments: str) -> Any:
    done = running.command(*arguments, "--json")
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout.strip() else None


async def calls(asking: openai.AsyncOpenAI, count: int) -> Counter[str]:
    """What became of so many at once."""

    async def one() -> str:
        try:
            await asking.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=OUTPUT, service_tier="default")
        except openai.APIStatusError as error:
            return str(error.code)
        return "ok"

    return Counter(await asyncio.gather(*(one() for _ in range(count))))


def held_up(running: Stack) -> None:
    """OpenAI answers only when every call of a round has been let in or refused, however busy the machine is."""
    running.control("openai", "POST", "/pace", {"first_s": ROUND_S, "interval_s": 0.0})


async def one_by_one(asking: openai.AsyncOpenAI, count: int) -> None:
    """Each after the other's answer."""
    for _ in range(count):
        await asking.chat.completions.create(model=MODEL, messages=ASKED)


async def spent(running: Stack) -> Decimal:
    (budget,) = await asyncio.to_thread(admin, running, "budgets", "list")
    return Decimal(budget["spent_usd"])


async def test_budgets_and_credit_hold_under_many_calls_at_once(limited: Stack) -> None:
    running, limit = limited, WORST_USD * 4
    budget = ["budgets", "set", "--user", running.user_id, "--limit", str(limit), "--period", "month"]
    made = await asyncio.to_thread(admin, running, *budget)
    async with client(running) as asking:
        await asyncio.sleep(0.5)  # a proxy may know the key from before
        held_up(running)
        seen = await calls(asking, 64)
        assert seen.keys() == {"ok", "insufficient_quota"}
        assert 1 <= seen["ok"] <= 5
        running.control("openai", "POST", "/pace", AT_ONCE)
        while (await calls(asking, 8))["ok"]:
            pass
        await settled_rows(running.env["DATABASE_URL"], len(running.truth()))
        assert 0 < await spent(running) <= limit
        with pytest.raises(openai.RateLimitError) as raised:
            await asking.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=OUTPUT, service_tier="default")
        refused = raised.value
        assert (refused.code, refused.type) == ("insufficient_quota", "insufficient_quota")
        assert refused.response.headers["x-should-retry"] == "false"
        assert "the user's monthly budget of 0.000280000 USD" in refused.message
        # Ended, the budget refuses nothing; credit does, from its first entry on.
        await asyncio.to_thread(admin, running, "budgets", "end", made["id"])
        booked = ["credits", "add", running.user_id, str(WORST_USD * 3), "--reference", "payment-1"]
        first = await asyncio.to_thread(admin, running, *booked)
        again = await asyncio.to_thread(admin, running, *booked)
        assert Decimal(first["left_usd"]) == Decimal(again["left_usd"]) == WORST_USD * 3
        await asyncio.sleep(0.5)
        held_up(running)
        assert 1 <= (await calls(asking, 64))["ok"] <= 4
        running.control("openai", "POST", "/pace", AT_ONCE)
        while (await calls(asking, 8))["ok"]:
            pass
        await settled_rows(running.env["DATABASE_URL"], len(running.truth()))
        left = await asyncio.to_thread(admin, running, "credits", "list", running.user_id)
        assert 0 <= Decimal(left["left_usd"]) < WORST_USD
        await asyncio.to_thread(admin, running, "credits", "add", running.user_id, "1")
        await asyncio.sleep(0.5)
        assert (await calls(asking, 8))["ok"] == 8


async def test_a_soft_budget_only_warns(limited: Stack) -> None:
    running = limited
    budget = ["budgets", "set", "--user", running.user_id, "--limit", "0.00003", "--soft", "--model", MODEL]
    await asyncio.to_thread(admin, running, *budget)
    await asyncio.sleep(0.5)
    async with client(running) as asking:
        assert await calls(asking, 3) == {"ok": 3}
        said = await asking.chat.completions.with_raw_response.create(model=MODEL, messages=ASKED)
        assert said.headers["x-gateway-budget"].startswith(f"the user's monthly budget for {MODEL} of 0.000030000 USD")
        other = await asking.chat.completions.with_raw_response.create(model="gpt-4.1", messages=ASKED)
        assert "x-gateway-budget" not in other.headers


@pytest.mark.parametrize("limited", [{"LIMITS__KEY_REQUESTS": "6", "LIMITS__USER_CONCURRENT": "2"}], indirect=True)
async def test_rates_and_slots_hold_over_two_proxies(limited: Stack) -> None:
    running = limited
    held_up(running)
    async with client(running) as asking:
        began_s = time.monotonic()
        assert await calls(asking, 12) == {"ok": 2, "rate_limit_exceeded": 10}
        running.control("openai", "POST", "/pace", AT_ONCE)
        for left in (3, 2, 1, 0):  # one after the other: the slot is free before the last byte
            said = await asking.chat.completions.with_raw_response.create(model=MODEL, messages=ASKED)
            came_back = int((time.monotonic() - began_s) / 10)  # one every ten seconds
            assert left <= int(said.headers["x-ratelimit-remaining-requests"]) <= left + came_back + 1
            assert said.headers["x-ratelimit-limit-requests"] == "6"
        with pytest.raises(openai.RateLimitError) as raised:
            await one_by_one(asking, 60)
        refused = raised.value
        assert (refused.code, refused.type) == ("rate_limit_exceeded", "requests")
        assert "Rate limit reached: 6 requests per minute are allowed." in refused.message
        assert 1 <= int(refused.response.headers["retry-after"]) <= 10
        assert refused.response.headers["x-should-retry"] == "true"
    made = len(running.truth())
    assert 6 <= made <= 6 + (time.monotonic() - began_s) / 10
    rows = await settled_rows(running.env["DATABASE_URL"], made)
    assert {row["evidence"] for row in rows} == {"reported"}


# Unkey counts verifications, so that these must be fewer than calls for the gateway to be the one that refuses.
@pytest.mark.parametrize("limited", [{"KEYS__FRESH_S": "30"}], indirect=True)
async def test_a_key_with_models_a_rate_and_a_budget_as_its_user_sees_it(limited: Stack) -> None:
    running = limited
    create = ["keys", "create", "--user", "ann@example.com", "--create-user", "--models", MODEL, "--endpoints", "chat"]
    made = await asyncio.to_thread(admin, running, *create, "--rpm", "4", "--tpm", "100000", "--concurrent", "3")
    await asyncio.to_thread(admin, running, "budgets", "set", "--user", "ann@example.com", "--limit", "5")
    async with client(running, made["key"]) as asking:
        said = await asking.chat.completions.with_raw_response.create(model=MODEL, messages=ASKED)
        assert said.headers["x-ratelimit-limit-requests"] == "4"
        assert said.headers["x-ratelimit-limit-tokens"] == "100000"
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await asking.chat.completions.create(model="gpt-5.1", messages=ASKED)
        assert (refused.value.code, refused.value.param) == ("insufficient_permissions", "model")
        assert "openai.model.gpt-5.1" in refused.value.message
        with pytest.raises(openai.PermissionDeniedError, match=r"openai\.embeddings"):
            await asking.embeddings.create(model="text-embedding-3-small", input="x")
        with pytest.raises(openai.PermissionDeniedError, match=r"openai\.models"):
            await asking.models.list()
        with pytest.raises(openai.RateLimitError, match="4 requests per minute"):
            await one_by_one(asking, 60)
    assert {call["endpoint"] for call in running.truth()} == {"chat"}


@contextlib.asynccontextmanager
async def frozen(url: str) -> AsyncIterator[None]:
    """A server that takes what is sent and answers nothing, as one that hangs or is cut off."""
    async with open_redis(url) as redis:
        pid = (await redis.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def until_all(asking: openai.AsyncOpenAI, outcome: str) -> None:
    """Asks until that is what becomes of a call."""
    async with asyncio.timeout(60):
        while await calls(asking, 1) != {outcome: 1}:
            await asyncio.sleep(0.2)


async def test_either_of_two_redis_may_be_away(database_url: str, tmp_path: Any) -> None:
    with (
        ephemeral({"valkey"}, parent=memory_folder()) as main,
        ephemeral({"valkey"}, parent=memory_folder()) as own,
        stack(tmp_path, database_url, main.redis_url, LIMITS_REDIS_URL=own.redis_url, KEYS__FRESH_S="0.2") as running,
    ):
        running.start()
        budget = ["budgets", "set", "--user", running.user_id, "--limit", "1"]
        made = await asyncio.to_thread(admin, running, *budget)
        async with client(running) as asking:
            await asyncio.sleep(0.5)
            assert await calls(asking, 1) == {"ok": 1}
            async with frozen(own.redis_url):
                await until_all(asking, "limits_unavailable")
                await asyncio.to_thread(admin, running, "budgets", "end", made["id"])
                await until_all(asking, "ok")
                await settled_rows(database_url, len(running.truth()))  # events go on
            await asyncio.to_thread(admin, running, *budget[:-1], str(WORST_USD * 4))
            await until_all(asking, "insufficient_quota")
            async with frozen(main.redis_url):
                assert await calls(asking, 4) == {"insufficient_quota": 4}  # the budget holds
                await asyncio.to_thread(admin, running, *budget)
                await until_all(asking, "ok")
            await settled_rows(database_url, len(running.truth()))
