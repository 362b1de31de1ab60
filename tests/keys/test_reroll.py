"""`keys reroll`: the new key is as the old one was, credits are never in two keys, and each step failing is told."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.keys.bounds import carried
from gateway.keys.change_commands import reroll
from gateway.keys.reroll import complete_key
from gateway.keys.unkey_admin import KeyAdmin, KeyChange, MadeKey
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.unkey.bodies import UpdateKey, VerifyKey
from gateway.sandbox.unkey.keys import Key, NamedLimit, Refill
from gateway.stores.postgres import Pool
from tests.keys.unkey_at_work import KeySides, key_sides_at

SAME = ("name", "external_id", "expires", "meta", "permissions", "roles")
OLD_SECRET = "sk_ann_canary_012"


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        await made.key(
            "ann", permissions=["openai.chat", "openai.model.x"], roles=["tester"], meta={"concurrent": 3, "plan": 1},
            ratelimits=[NamedLimit("requests", 60, 60_000, "rl_1", True)], remaining=1000,
        )  # fmt: skip
        yield made


def limits(key: Key) -> list[tuple[str, int, int, bool]]:
    """Its rate limits; their ids are its own."""
    return [(one.name, one.limit, one.duration, one.auto_apply) for one in key.ratelimits]


def code(sides: KeySides, secret: str) -> str:
    """What Unkey says of a secret, at no cost."""
    answer = sides.sandbox.unkey.verify_key(msgspec.convert({"key": secret, "credits": {"cost": 0}}, VerifyKey))
    return str(answer["code"])


def credits_in_all(sides: KeySides) -> int:
    """What all keys that work can spend together."""
    return sum(key.remaining or 0 for key in sides.sandbox.unkey.kept.keys.values())


def others(sides: KeySides) -> list[Key]:
    """All keys at Unkey but the old one."""
    return [key for key in sides.sandbox.unkey.kept.keys.values() if key.key_id != "key_ann"]


async def test_a_new_key_takes_the_place_of_the_old_one(sides: KeySides, pool: Pool) -> None:
    row = await sides.row("key_ann")
    await pool.execute("update api_keys set description = 'at home', usage_count = 7")
    await pool.execute(
        "insert into budgets (user_id, api_key_id, period, is_hard, limit_usd, is_active) "
        "values ($1, $2, 'month', true, 5, true), ($1, $2, 'day', true, 1, false), ($1, null, 'day', true, 9, true)",
        row["user_id"], row["id"],
    )  # fmt: skip
    done = await sides.run("reroll", "key_ann", "--json")
    document = json.loads(done.out)
    old, new = sides.kept("key_ann"), sides.kept(document["key_id"])
    assert [getattr(new, name) for name in SAME] == [getattr(old, name) for name in SAME]
    assert limits(new) == limits(old)
    assert (old.remaining, new.remaining, document["credits"]) == (0, 1000, 1000)
    assert (code(sides, OLD_SECRET), code(sides, document["key"])) == ("DISABLED", "VALID")
    made, ended = await sides.row(new.key_id), await sides.row("key_ann")
    assert [made[name] for name in ("user_id", "name", "description", "is_active", "usage_count")] == [
        row["user_id"], "ann", "at home", True, 0,
    ]  # fmt: skip
    assert (str(made["id"]), ended["is_active"], ended["revoked_at"] is None) == (document["api_key_id"], False, False)
    assert (document["old_ended"], document["old_works_until"], document["budgets"]) == (True, None, 1)
    carried_over = await pool.fetch("select period, limit_usd from budgets where api_key_id = $1", made["id"])
    assert [tuple(one) for one in carried_over] == [("month", 5)]
    stored = "".join(map(str, await pool.fetch("select api_keys::text from api_keys")))
    assert done.out.count(document["key"]) == 1
    assert document["key"] not in stored
    again = await sides.run("reroll", "key_ann")
    assert (again.status, again.out, len(others(sides))) == (1, "", 1)
    assert "key_ann is not active (revoked)" in again.error


async def test_with_an_overlap_both_work_and_only_one_has_credits(sides: KeySides) -> None:
    sides.kept("key_ann").refill = Refill("daily", 500)
    done = await sides.run("reroll", "key_ann", "--overlap", "1h")
    (new,) = others(sides)
    old, row = sides.kept("key_ann"), await sides.row("key_ann")
    assert (old.remaining, old.refill, new.remaining, new.refill) == (0, None, 1000, Refill("daily", 500))
    assert old.expires == int(row["expires_at"].timestamp() * 1000)
    assert timedelta(hours=1) <= row["expires_at"] - sides.began_at < timedelta(hours=2)
    secret = next(line.strip() for line in done.out.splitlines() if line.startswith("  "))
    assert (code(sides, OLD_SECRET), code(sides, secret), new.expires) == ("VALID", "VALID", None)
    assert "the old one has 0 since before this was shown" in done.out
    shown = await sides.json("show", "key_ann")
    assert (shown["state"], [one["kind"] for one in shown["drift"]]) == ("active", ["mark"])  # the old one has none
    earlier = old.expires
    done = await sides.run("reroll", "key_ann", "--overlap", "30d")  # it does not live longer for it
    assert (done.status, sides.kept("key_ann").expires) == (0, earlier)


async def test_what_unkey_does_not_carry_is_carried(sides: KeySides) -> None:
    sides.kept("key_ann").expires = int(sides.began_at.timestamp() * 1000) + 10**9
    async with KeyAdmin(credentials.UNKEY_ROOT_KEY, base_url=sides.sandbox.unkey_base_url) as admin:
        old = await admin.describe_key("key_ann")
        sides.at_unkey("bare", external_id=sides.kept("key_ann").external_id, enabled=False)
        bare = await admin.describe_key("key_bare")
        assert old is not None
        assert bare is not None
        assert carried(old, bare) is not None
        bare = await complete_key(admin, old, MadeKey("key_bare", ""))
        assert carried(old, bare) is None
    new, kept = sides.kept("key_bare"), sides.kept("key_ann")
    assert limits(new) == limits(kept)
    assert [getattr(new, name) for name in SAME] == [getattr(kept, name) for name in SAME]
    assert new.enabled


FAILS: list[tuple[dict[str, Any], int, list[str]]] = [
    ({"endpoint": "keys.getKey", "status": 429}, 0, ["Nothing was changed"]),
    ({"endpoint": "keys.rerollKey", "status": 403}, 0, ["key_ann works as before", "api.*.create_key"]),
    ({"endpoint": "keys.rerollKey", "drop": True}, 1, ["key_ann works as before", "`gateway keys sync` names it"]),
    ({"endpoint": "keys.rerollKey", "body": "{}"}, 2, ["key_ann works as before", "nobody has seen its secret"]),
    ({"endpoint": "keys.updateCredits", "status": 429, "times": 1}, 2, ["deleted at Unkey again", "with its 1,000"]),
    ({"endpoint": "keys.updateCredits", "drop": True, "times": 1}, 2, ["could not be made whole", "with its 1,000"]),
]
"""A trouble, how many new keys Unkey has by then (only it can know of those), and what is said."""


async def test_what_fails_before_the_new_key_is_whole_leaves_the_old_one(sides: KeySides, pool: Pool) -> None:
    for trouble, unlinked, says in FAILS:
        await sides.trouble(**trouble)
        done = await sides.run("reroll", "key_ann")
        await sides.well_again()
        assert (done.status, done.out, code(sides, OLD_SECRET)) == (1, "", "VALID"), trouble
        assert sides.kept("key_ann").remaining == 1000, trouble
        assert [key for key in others(sides) if key.enabled and key.remaining == 1000] == others(sides)
        assert len(others(sides)) == unlinked, trouble
        for said in says:
            assert said in done.error, (trouble, done.error)
    assert await sides.lets_in("key_ann") == (True, True)
    assert await pool.fetchval("select count(*) from api_keys where is_active") == 1
    async with sides.rows_refuse("insert"):
        done = await sides.run("reroll", "key_ann")
        assert (done.status, len(others(sides)), sides.kept("key_ann").remaining) == (1, 2, 1000)
        assert "It has been deleted at Unkey again" in done.error
        assert "key_ann works as before" in done.error
    assert (await sides.run("reroll", "key_ann")).status == 0


async def test_credits_that_cannot_be_put_back_are_spoken_of(sides: KeySides) -> None:
    await sides.trouble(endpoint="keys.updateCredits", drop=True)
    done = await sides.run("reroll", "key_ann")
    assert (done.status, done.out, credits_in_all(sides)) == (1, "", 1000)  # set to 0, and back; neither confirmed
    assert "Whether key_ann still has its 1,000 credits is not known" in done.error


async def test_what_fails_afterwards_is_told_beside_the_key(sides: KeySides) -> None:
    await sides.trouble(endpoint="keys.updateKey", status=429)
    done = await sides.run("reroll", "key_ann", "--json")
    document = json.loads(done.out)
    assert (done.status, document["old_ended"], code(sides, document["key"])) == (1, False, "VALID")
    assert "`gateway keys revoke key_ann` ends it" in done.error
    assert (credits_in_all(sides), sides.kept("key_ann").remaining) == (1000, 0)
    await sides.well_again()
    async with sides.rows_refuse():
        done = await sides.run("reroll", document["key_id"], "--overlap", "7d")
    assert done.status == 1
    assert "could not be marked here: `gateway keys sync --repair` does that" in done.error
    assert "Unkey id key_" in done.out
    assert (await sides.run("revoke", "key_ann")).status == 0
    assert await sides.lets_in("key_ann") == (False, False)


async def test_only_a_key_that_works_and_is_the_users_is_rerolled(sides: KeySides) -> None:
    as_it_was: dict[str, Any] = {"enabled": True, "expires": None, "external_id": sides.kept("key_ann").external_id}
    for change, says in (
        ({"enabled": False}, "disabled or expired at Unkey"),
        ({"expires": 1000}, "disabled or expired at Unkey"),
        ({"external_id": "somebody"}, "to externalId somebody at Unkey"),
    ):
        sides.sandbox.unkey.update_key(UpdateKey(key_id="key_ann", **as_it_was | change))
        done = await sides.run("reroll", "key_ann")
        assert (done.status, others(sides)) == (1, [])
        assert says in done.error
    sides.sandbox.unkey.update_key(UpdateKey(key_id="key_ann", **as_it_was))
    for wrong in ("1", "-1h", "1y", "0", "99999w", "1h30m", "１h", ""):
        done = await sides.run("reroll", "key_ann", "--overlap", wrong)
        assert done.error.startswith("--overlap: ")
    for unknown in ("key_none", OLD_SECRET, ""):
        done = await sides.run("reroll", unknown)
        assert done.error.startswith("key: ")
        assert OLD_SECRET not in done.error
    await sides.run("disable", "key_ann")
    assert "is not active (disabled)" in (await sides.run("reroll", "key_ann")).error
    assert others(sides) == []


async def test_an_interrupt_never_leaves_half_a_key(sides: KeySides, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        database_url=SecretStr(sides.env["DATABASE_URL"]),
        unkey_root_key=SecretStr(credentials.UNKEY_ROOT_KEY),
        unkey_base_url=sides.sandbox.unkey_base_url,
    )
    out = io.StringIO()
    set_credits, interrupted = KeyAdmin.set_credits, iter([True])

    async def interrupt(admin: KeyAdmin, key_id: str, remaining: int) -> bool:
        if next(interrupted, False):
            raise asyncio.CancelledError
        return await set_credits(admin, key_id, remaining)

    monkeypatch.setattr(KeyAdmin, "set_credits", interrupt)
    now = datetime.now(UTC)
    with pytest.raises(asyncio.CancelledError):
        await reroll(settings, Console(file=out), reference="key_ann", overlap=timedelta(), now=now, as_json=False)
    assert (out.getvalue(), others(sides), sides.kept("key_ann").remaining) == ("", [], 1000)

    async def cancelled(admin: KeyAdmin, key_id: str, change: KeyChange) -> bool:
        raise asyncio.CancelledError

    monkeypatch.setattr(KeyAdmin, "update_key", cancelled)
    now = datetime.now(UTC)
    with pytest.raises(asyncio.CancelledError):
        await reroll(settings, Console(file=out), reference="key_ann", overlap=timedelta(), now=now, as_json=False)
    (new,) = others(sides)
    assert new.key_id in out.getvalue()  # it is whole, so it was shown
    assert (await sides.lets_in(new.key_id), sides.kept("key_ann").remaining) == ((True, True), 0)
