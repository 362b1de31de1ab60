"""Two hosts over the same stores: one is cut off and swept, comes back, and is then lost with its disk."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg

from gateway.hosts.identity import read_host
from gateway.hosts.open_calls import CALLS, LEASE
from gateway.stores.redis import open_redis
from tests.chaos.checks import billed, healed, until, verdict
from tests.chaos.payers import make_payer
from tests.faults.scene import HEAL_S, QUICK
from tests.support.gateway import Stack, children

BODY: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me a story"}], "stream": True}
CUT_OFF: Final = 5
IN_FLIGHT: Final = 20


@contextlib.asynccontextmanager
async def streams(host: Stack, calls: int) -> AsyncIterator[list[aiohttp.ClientResponse]]:
    """Answers that have begun."""
    headers = {"Authorization": f"Bearer {host.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        answers = [await session.post(f"{host.base_url}/chat/completions", json=BODY) for _ in range(calls)]
        for answer in answers:
            await answer.content.readany()
        try:
            yield answers
        finally:
            for answer in answers:
                answer.close()


def signal_all(host: Stack, number: signal.Signals) -> None:
    """To the parent first, which would start again what dies."""
    parent = host.serve.popen.pid
    below = children(parent)
    for pid in (parent, *below):
        os.kill(pid, number)


async def shown(host: Stack, host_id: str, calls: int) -> None:
    """Waits until Redis has so many calls in flight of this host."""
    redis = open_redis(host.env["REDIS_URL"])
    async with asyncio.timeout(HEAL_S):
        while await redis.hlen(CALLS + host_id) != calls:
            await asyncio.sleep(0.05)
    await redis.aclose()


async def end_leases(host: Stack, host_id: str) -> None:
    """As an hour and a quarter would."""
    redis = open_redis(host.env["REDIS_URL"])
    await redis.delete(LEASE + host_id)
    await redis.aclose()
    connection = await asyncpg.connect(host.env["DATABASE_URL"])
    await connection.execute("update hosts set lease_until = now() - interval '1 second' where id = $1", host_id)
    await connection.close()


async def counted(host: Stack) -> dict[str, Any]:
    connection = await asyncpg.connect(host.env["DATABASE_URL"])
    row = await connection.fetchrow(
        "select count(*) filter (where adjusts is null) as calls, count(*) filter (where adjusts is not null) as exact,"
        " count(*) filter (where adjusts is null and metadata->>'reason' = 'host_lost') as lost from openai_usage"
    )
    await connection.close()
    assert row is not None
    return dict(row)


async def test_a_host_that_is_cut_off_and_one_that_is_lost(fresh_stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    fresh_stack.env.update({**QUICK, "HOSTS__SWEEP_S": "0.5", "HOSTS__RENEW_S": "1"})
    await asyncio.to_thread(fresh_stack.start, background=False)
    await make_payer(fresh_stack, fresh_stack.env["DATABASE_URL"], fresh_stack.user_id)
    other = fresh_stack.beside(tmp_path / "other")
    try:
        other.serve = other.run("serve")
        await asyncio.to_thread(other.serve.wait_for, "serving http")
        await _play(fresh_stack)
    finally:
        await asyncio.to_thread(other.stop)


async def _play(host: Stack) -> None:
    dsn, host_id = host.env["DATABASE_URL"], read_host(host.folder / "data").id
    host.control("openai", body={"interval_s": 0.2, "chunks": 30, "stream": True})
    async with streams(host, CUT_OFF) as answers:
        await shown(host, host_id, CUT_OFF)
        signal_all(host, signal.SIGSTOP)
        await end_leases(host, host_id)
        await until(dsn, HEAL_S, f"select count(*) >= {CUT_OFF} from openai_usage")
        assert await counted(host) == {"calls": CUT_OFF, "exact": 0, "lost": CUT_OFF}
        signal_all(host, signal.SIGCONT)
        for answer in answers:
            await answer.read()
    await until(dsn, HEAL_S, f"select count(*) >= {CUT_OFF} from openai_usage where adjusts is not null")
    assert await counted(host) == {"calls": CUT_OFF, "exact": CUT_OFF, "lost": CUT_OFF}

    host.control("openai", body={"interval_s": 1, "chunks": 300, "stream": True})
    async with streams(host, IN_FLIGHT):
        await shown(host, host_id, IN_FLIGHT)
        signal_all(host, signal.SIGKILL)
        host.serve.popen.wait()
    shutil.rmtree(host.folder / "data")
    await end_leases(host, host_id)
    await until(dsn, HEAL_S, f"select count(*) >= {CUT_OFF + IN_FLIGHT} from openai_usage where adjusts is null")
    assert await counted(host) == {"calls": CUT_OFF + IN_FLIGHT, "exact": CUT_OFF, "lost": CUT_OFF + IN_FLIGHT}
    host.calm()
    truth = {one["client_request_id"]: one for one in host.truth()}
    truth.pop(None, None)
    await healed(dsn, truth, HEAL_S)
    await billed(dsn, HEAL_S)
    found = await verdict(dsn, truth, host.control("stripe", "GET", "/events")["events"])
    assert (found.clean, found.calls) == (True, CUT_OFF + IN_FLIGHT), found
