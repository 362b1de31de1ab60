"""Events: written with what they tell or not at all, never changed, shown by `gateway log`."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.config.settings import Settings
from gateway.kit.errors import DependencyDown, OptionError
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.trail.actor import Actor, operator
from gateway.trail.commands import describe_change
from gateway.trail.record import intending, recording
from gateway.trail.store import Deed, Trail
from tests.keys.unkey_at_work import KeySides, key_sides_at
from tests.support.invoke import gateway

ADA = Actor("operator", "Ada")
ESCAPE = "\x1b[31m"


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=SecretStr(database_url), gateway_operator="Ada")


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        made.env |= {"GATEWAY_OPERATOR": "Ada"}
        await made.key("ann")
        yield made


async def events(pool: Pool) -> list[tuple[Any, ...]]:
    rows = await pool.fetch("select verb, subject, subject_id, phase, after from admin_events order by id")
    return [(*list(row.values())[:-1], json.loads(row["after"] or "null")) for row in rows]


async def test_nobody_changes_an_event(pool: Pool) -> None:
    await Trail(pool).write(ADA, Deed("set", "user", "u"))
    for statement in ("update admin_events set actor = 'x'", "delete from admin_events", "truncate admin_events"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await pool.execute(statement)


async def test_a_change_without_its_event_is_undone(settings: Settings, pool: Pool, database_url: str) -> None:
    async def change() -> None:
        async with recording(settings, pool) as record:
            await Accounts(record.connections).create_user("zoe@example.com")
            await record.write(Deed("create", "user", "z"))
            raise OptionError("no")

    with pytest.raises(OptionError):
        await change()
    assert await events(pool) == []
    await pool.execute("alter table admin_events rename to gone")
    done = await gateway({"DATABASE_URL": database_url}, "users", "create", "zoe@example.com")
    assert "admin_events" in done.error
    assert await pool.fetchval("select count(*) from users") == 0


async def test_what_is_refused_leaves_no_event(database_url: str, pool: Pool) -> None:
    env = {"DATABASE_URL": database_url}
    await Accounts(pool).create_user("ann@example.com", stripe_customer_id="cus_ann")
    await pool.execute("update customers set mode = 'grants'")
    done = await gateway(env, "credits", "add", "ann@example.com", "5")
    assert "has credit grants at Stripe" in done.error
    assert await pool.fetchval("select count(*) from credit_entries") == 0
    assert await events(pool) == []


async def test_an_intent_comes_first_and_has_an_outcome(settings: Settings, pool: Pool) -> None:
    async with intending(settings, Deed("revoke", "key", "key_1")) as intent:
        assert await events(pool) == [("revoke", "key", "key_1", "intent", None)]
        intent.learn({"is_active": False})
    assert (await events(pool))[1:] == [("revoke", "key", "key_1", "done", {"is_active": False})]
    with pytest.raises(DependencyDown):
        async with intending(settings, Deed("set", "key", "key_2")):
            raise DependencyDown("unkey", "no answer")
    failed = ("set", "key", "key_2", "failed", {"error": "DependencyDown: unkey: no answer"})
    assert (await events(pool))[2:] == [("set", "key", "key_2", "intent", None), failed]
    secret = "sk_canary"
    with pytest.raises(RuntimeError):
        async with intending(settings, Deed("set", "key", "key_3")):
            raise RuntimeError(secret)
    assert (await events(pool))[-1][-1] == {"error": "RuntimeError"}


async def test_without_a_place_for_the_intent_nothing_is_done_at_unkey(sides: KeySides) -> None:
    await sides.pool.execute("alter table admin_events rename to gone")
    done = await sides.run("revoke", "key_ann")
    assert "Nothing was changed" in done.error
    assert await sides.lets_in("key_ann") == (True, True)


async def test_a_key_that_unkey_could_not_change_has_a_failed_outcome(sides: KeySides) -> None:
    await sides.trouble(status=500, times=100)
    done = await sides.run("disable", "key_ann")
    assert done.error
    assert [event[:4] for event in await events(sides.pool)] == [
        ("disable", "key", "key_ann", "intent"),
        ("disable", "key", "key_ann", "failed"),
    ]


async def test_who_it_was(settings: Settings) -> None:
    assert operator(settings) == ADA
    assert operator(settings, " Bob ") == Actor("operator", "Bob")
    assert "@" in operator(settings.model_copy(update={"gateway_operator": None})).name
    for wrong in (" ", "x" * 1001, ESCAPE):
        with pytest.raises(OptionError, match="--by"):
            operator(settings, wrong)


def test_a_change_is_described_by_what_differs() -> None:
    assert describe_change({"a": 1, "b": None, "c": 2}, {"a": 1, "b": 3, "d": 4, "e": None, "f": []}) == (
        "b null → 3, c was 2, d 4"
    )


async def test_the_log_is_shown(database_url: str, pool: Pool) -> None:
    trail = Trail(pool)
    await trail.write(ADA, Deed("set", "budget", "b-1", {"limit_usd": "1"}, {"limit_usd": "2", "model": ESCAPE}))
    await trail.write(Actor("key", "key_1"), Deed("read_sensitive", "room", "r-1"))
    await trail.write(Actor("operator", "=1+1"), Deed("create", "user", "u-1", None, {"name": "\udcff\0"}))

    async def log(*options: str) -> str:
        done = await gateway({"DATABASE_URL": database_url}, "log", *options)
        assert (done.status, done.error) == (0, "")
        return done.out

    shown = await log()
    assert "budget set b-1" in shown
    assert 'limit_usd "1" → "2"' in " ".join(shown.split())
    assert "key key_1" in shown
    assert ESCAPE not in shown
    found = json.loads(await log("--json"))
    assert [event["verb"] for event in found] == ["set", "read_sensitive", "create"]  # the oldest first
    assert found[0]["after"] == {"limit_usd": "2", "model": ESCAPE}
    for options, verbs in (
        (("--by", "Ada"), ["set"]),
        (("--by", "key_1"), ["read_sensitive"]),
        (("--what", "budget"), ["set"]),
        (("--what", "budget set"), ["set"]),
        (("--what", "create"), ["create"]),
        (("--what", "r-1"), ["read_sensitive"]),
        (("--since", "today"), ["set", "read_sensitive", "create"]),
        (("--limit", "1"), ["create"]),
    ):
        assert [event["verb"] for event in json.loads(await log(*options, "--json"))] == verbs, options
    rows = list(csv.DictReader(io.StringIO(await log("--csv"), newline="")))
    assert [row["actor"] for row in rows] == ["Ada", "key_1", "'=1+1"]
    assert json.loads(rows[0]["before"]) == {"limit_usd": "1"}
    assert await log("--what", "nothing") == "No events.\n"
    assert "contradict" in (await gateway({"DATABASE_URL": database_url}, "log", "--json", "--csv")).error
