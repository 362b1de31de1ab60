"""What an operator sees of hosts: the list, the figures of a worker, and the doctor."""

import json
from contextlib import AsyncExitStack
from urllib.parse import urlsplit
from uuid import uuid4

from gateway.config.settings import Settings
from gateway.doctor.hosts import hosts as check
from gateway.hosts.store import Hosts
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from tests.support.environment import clean_environment
from tests.support.invoke import gateway

MAKE = """
insert into hosts (id, name, seen_at, lease_until, ended_at, lost_at, open_calls, swept_calls)
values ($1, $2, now() - $3 * interval '1 second', now() + $4 * interval '1 second',
  case when $5 then now() end, case when $6 then now() end, 3, 2)
"""


async def test_each_state_is_seen(pool: Pool, database_url: str, redis_url: str) -> None:
    for name, seen_s, lease_s, is_ended, is_lost in (
        ("busy", 1, 4000, False, False),
        ("cut off", 90, 4000, False, False),
        ("burnt", 5000, -1, True, True),
        ("being swept", 5000, -1, False, True),
        ("scaled down", 5000, -1, True, False),
    ):
        await pool.execute(MAKE, str(uuid4()), name, seen_s, lease_s, is_ended, is_lost)
    assert await Hosts(pool).counts() == {"alive": 1, "silent": 1, "lost": 2}
    env = clean_environment() | {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    listed = await gateway(env, "hosts", "--json")
    assert {host["name"]: host["state"] for host in json.loads(listed.out)} == {
        "busy": "alive",
        "cut off": "silent",
        "burnt": "lost",
        "being swept": "lost",
        "scaled down": "stopped",
    }
    table = await gateway(env, "hosts")
    assert table.status == 0
    assert "being swept" in table.out
    async with AsyncExitStack() as stack:
        found = await check(Settings.of(env), stack)
    assert [(each.level, each.says.split(":")[-1].strip()) for each in found] == [
        ("warn", "cut off"),
        ("warn", "being swept, burnt"),
    ]
    await pool.execute("update hosts set lost_at = now() - interval '25 hours' where lost_at is not null")
    assert (await Hosts(pool).counts())["lost"] == 0


async def test_nothing_to_say(pool: Pool, database_url: str, redis_url: str) -> None:
    await pool.execute(MAKE, str(uuid4()), "busy", 1, 4000, False, False)
    async with AsyncExitStack() as stack:
        (found,) = await check(
            Settings.of(clean_environment() | {"DATABASE_URL": database_url, "REDIS_URL": redis_url}), stack
        )
    assert (found.level, found.says) == ("ok", "1 host(s) take calls")


async def test_a_login_of_redis_that_lacks_the_right(pool: Pool, database_url: str, redis_url: str) -> None:
    """As one has it that was made for an earlier version."""
    redis = open_redis(redis_url)
    login = f"old-{uuid4().hex}"
    await redis.acl_setuser(login, enabled=True, nopass=True, keys=["owner:*"], categories=["+@all"])
    parts = urlsplit(redis_url)
    url = parts._replace(netloc=f"{login}:any@{parts.netloc}").geturl() if parts.netloc else None
    url = url or f"{redis_url}&username={login}&password=any"
    try:
        async with AsyncExitStack() as stack:
            env = clean_environment() | {"DATABASE_URL": database_url, "REDIS_URL": url}
            (found,) = await check(Settings.of(env), stack)
    finally:
        await redis.acl_deluser(login)
        await redis.aclose()
    assert found.level == "warn"
    assert "under host:" in found.fix
