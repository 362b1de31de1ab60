"""`keys sync`: names every way in which the two sides can differ, repairs what it may and nothing else, at any time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from pydantic import SecretStr

from gateway.config.settings import Settings
from gateway.keys.described import DescribedKey, KeyPage
from gateway.keys.sync import Synced, sync
from gateway.keys.unkey_admin import KeyAdmin
from gateway.kit.errors import DependencyDown
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.unkey.bodies import UpdateKey
from gateway.stores.postgres import Pool
from tests.keys.unkey_at_work import KeySides, key_sides_at

ENDS_MS = int(time.time() * 1000) + 10**9
DRIFT = {
    ("not_linked", "key_found"): True,
    ("not_linked", "key_stranger"): False,
    ("not_linked", "key_ownerless"): False,
    ("not_at_unkey", "key_gone"): True,
    ("name", "key_named"): True,
    ("expires_at", "key_ending"): True,
    ("enabled", "key_off"): True,
    ("enabled", "key_on"): True,
    ("owner", "key_moved"): False,
    ("enabled", "key_zombie"): False,
}
"""Every kind of disagreement, and whether --repair ends it."""


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        await made.key("same")
        yield made


async def disagree(sides: KeySides) -> None:
    """Makes one key of each kind of `DRIFT`, and some in which all is well."""
    unkey = sides.sandbox.unkey
    _, ann = await sides.key("ann")
    sides.at_unkey("found", external_id=ann, name="[red]\x1b[31mfound", enabled=False, expires=ENDS_MS)
    sides.at_unkey("stranger", external_id=str(uuid4()))
    sides.at_unkey("ownerless")
    for name in ("gone", "named", "ending", "off", "on", "moved", "zombie", "lost"):
        await sides.key(name)
    await sides.gone("key_gone")
    for change in (
        {"key_id": "key_named", "name": "renamed"},
        {"key_id": "key_ending", "expires": ENDS_MS},
        {"key_id": "key_off", "enabled": False},
        {"key_id": "key_moved", "external_id": ann},
    ):
        unkey.update_key(UpdateKey(**change))
    await sides.pool.execute("update api_keys set is_active = false where unkey_key_id = 'key_on'")
    await sides.pool.execute("update api_keys set is_active = false, revoked_at = now() where unkey_key_id in "
                             "('key_zombie', 'key_lost')")  # fmt: skip
    await sides.gone("key_lost")  # revoked here and gone there: nobody misses it


async def everything(sides: KeySides) -> tuple[bytes, list[Any]]:
    """Both sides, whole."""
    rows = await sides.pool.fetch("select * from api_keys order by id")
    return msgspec.json.encode(sides.sandbox.unkey.kept.keys), [tuple(row) for row in rows]


def outcomes(document: dict[str, Any]) -> dict[tuple[str, str], bool]:
    """Which disagreements were repaired."""
    assert len({(one["kind"], one["key_id"]) for one in document["drift"]}) == len(document["drift"])
    return {(one["kind"], one["key_id"]): one["outcome"] == "repaired" for one in document["drift"]}


async def test_every_difference_is_told_and_nothing_is_touched(sides: KeySides) -> None:
    assert (await sides.json("sync"))["drift"] == []
    await disagree(sides)
    before = await everything(sides)
    for _ in range(2):
        done = await sides.run("sync", "--json")
        document = json.loads(done.out)
        assert (done.status, outcomes(document)) == (1, dict.fromkeys(DRIFT, False))
        assert (document["left"], document["repaired"]) == (len(DRIFT), 0)
        assert await everything(sides) == before
    table = await sides.run("sync")
    for said in ("key_zombie", "`gateway keys revoke key_zombie` disables it", "renamed", "10 differences left"):
        assert said in table.out
    assert "\x1b" not in table.out


async def test_repair_takes_what_unkey_says_and_nothing_more(sides: KeySides) -> None:
    await disagree(sides)
    at_unkey, _ = await everything(sides)
    first = await sides.run("sync", "--repair", "--json")
    assert (first.status, outcomes(json.loads(first.out))) == (1, DRIFT)
    assert (await everything(sides))[0] == at_unkey  # never anything at Unkey
    found = await sides.row("key_found")
    assert (found["name"], found["is_active"], found["revoked_at"]) == ("[red]\x1b[31mfound", False, None)
    assert str(found["user_id"]) == sides.kept("key_found").external_id
    assert found["expires_at"] == (await sides.row("key_ending"))["expires_at"]
    assert (await sides.row("key_named"))["name"] == "renamed"
    gone, moved = await sides.row("key_gone"), await sides.row("key_moved")
    assert (gone["is_active"], gone["revoked_at"] is None) == (False, False)
    assert str(moved["user_id"]) != sides.kept("key_moved").external_id  # whose it is, a person decides
    assert [await sides.lets_in(f"key_{name}") for name in ("off", "on", "zombie", "same")] == [
        (False, False), (True, True), (True, False), (True, True),
    ]  # fmt: skip
    after = await everything(sides)
    again = await sides.run("sync", "--repair", "--json")
    assert outcomes(json.loads(again.out)) == {kind: False for kind, repairable in DRIFT.items() if not repairable}
    assert await everything(sides) == after
    listed = (await sides.run("list", "--all")).out
    assert "\\x1b[31mfound" in listed
    for key_id in ("key_stranger", "key_ownerless", "key_moved"):
        await sides.gone(key_id)
    await sides.run("revoke", "key_zombie")
    assert (await sides.run("sync", "--repair")).status == 0
    assert (await sides.run("sync")).status == 0


def settings_of(sides: KeySides) -> Settings:
    return Settings(
        database_url=SecretStr(sides.env["DATABASE_URL"]),
        unkey_root_key=SecretStr(credentials.UNKEY_ROOT_KEY),
        unkey_api_id=credentials.UNKEY_API_ID,
        unkey_base_url=sides.sandbox.unkey_base_url,
    )


async def synced(sides: KeySides, *, repair: bool = True) -> Synced:
    return await sync(settings_of(sides), repair=repair, revoke_at_most=10)


async def many(sides: KeySides, count: int) -> None:
    """So many more keys of one user, of which every third is called something else here."""
    _, bob = await sides.key("bob")
    for number in range(count):
        sides.at_unkey(f"n{number}", external_id=bob, name=f"n{number}")
    await sides.pool.executemany(
        "insert into api_keys (user_id, unkey_key_id, name) values ($1, $2, $3)",
        [(bob, f"key_n{number}", f"n{number}" if number % 3 else "other") for number in range(count)],
    )


async def test_two_at_once_over_several_pages_do_what_one_does(sides: KeySides) -> None:
    await disagree(sides)
    await many(sides, 230)
    runs = await asyncio.gather(synced(sides), synced(sides))
    for run in runs:
        assert run.at_unkey == len(sides.sandbox.unkey.kept.keys) > 200
        assert {(one.drift.kind, one.drift.key_id) for one in run.findings if one.outcome == "differs"} == {
            kind for kind, repairable in DRIFT.items() if not repairable
        }
    repaired = [one.drift.key_id for run in runs for one in run.findings if one.outcome == "repaired"]
    fixable = {key_id for (_, key_id), repairable in DRIFT.items() if repairable}
    assert set(repaired) == fixable | {f"key_n{number}" for number in range(0, 230, 3)}
    alone = await synced(sides)
    assert alone.left == len(alone.findings) == sum(not repairable for repairable in DRIFT.values())
    assert await sides.pool.fetchval("select count(*) from api_keys where unkey_key_id = 'key_found'") == 1
    assert await sides.pool.fetchval("select count(*) from api_keys where name = 'other'") == 0


async def test_what_changes_meanwhile_is_not_overwritten(sides: KeySides, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = KeyAdmin.describe_key
    state = {"revoke": True}

    async def meanwhile(admin: KeyAdmin, key_id: str) -> DescribedKey | None:
        found = await describe(admin, key_id)
        if state["revoke"]:  # after the row was read, and Unkey asked
            await sides.pool.execute("update api_keys set is_active = false, revoked_at = now()")
        else:
            await sides.pool.execute("update api_keys set name = gen_random_uuid()::text")
        return found

    monkeypatch.setattr(KeyAdmin, "describe_key", meanwhile)
    sides.sandbox.unkey.update_key(UpdateKey(key_id="key_same", name="renamed"))
    (finding,) = (await synced(sides)).findings
    row = await sides.row("key_same")
    assert (row["name"], row["is_active"], finding.drift.kind, finding.outcome) == ("same", False, "enabled", "differs")
    state["revoke"] = False
    await sides.pool.execute("update api_keys set is_active = true, revoked_at = null")
    run = await synced(sides)
    assert [(one.drift.kind, one.outcome) for one in run.findings] == [("name", "differs")]
    assert "keeps changing" in run.findings[0].drift.hint


async def test_a_foreign_workspace_does_not_revoke_everything(sides: KeySides) -> None:
    for number in range(12):
        await sides.key(f"k{number}")
        await sides.gone(f"key_k{number}")
    done = await sides.run("sync", "--repair", "--json")
    document = json.loads(done.out)
    assert (done.status, document["repaired"], document["left"]) == (1, 0, 12)
    assert "more than --revoke-at-most 10" in document["drift"][0]["hint"]
    assert await sides.pool.fetchval("select count(*) from api_keys where revoked_at is not null") == 0
    assert (await sides.run("sync", "--repair", "--revoke-at-most", "12")).status == 0
    assert await sides.pool.fetchval("select count(*) from api_keys where revoked_at is not null") == 12


async def test_a_key_of_another_api_is_compared_too(sides: KeySides) -> None:
    sides.sandbox.unkey.apis.add("api_other")
    sides.kept("key_same").api_id = "api_other"
    assert (await synced(sides)).findings == []


async def test_what_stands_in_the_way_is_named(sides: KeySides, monkeypatch: pytest.MonkeyPatch) -> None:
    for change, says in (
        ({"UNKEY_API_ID": ""}, "UNKEY_API_ID is not set"),
        ({"UNKEY_API_ID": "api_none"}, "UNKEY_API_ID (api_none) is not an API of this workspace"),
        ({"UNKEY_ROOT_KEY": ""}, "UNKEY_ROOT_KEY is not set"),
        ({"UNKEY_ROOT_KEY": "unkey_wrong"}, "UNKEY_ROOT_KEY is refused by Unkey (401)"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "postgres: "),
    ):
        env, sides.env = sides.env, sides.env | change
        done = await sides.run("sync", "--repair")
        sides.env = env
        assert (done.status, done.out) == (1, ""), says
        assert done.error.startswith(says), done.error
        assert "unkey_wrong" not in done.error
    assert (await sides.run("sync", "--revoke-at-most", "-1")).error.startswith("--revoke-at-most: 0 or more")
    sides.sandbox.unkey.update_key(UpdateKey(key_id="key_same", name="renamed"))
    await sides.trouble(endpoint="keys.getKey", status=429)
    done = await sides.run("sync", "--repair")
    assert "0 keys were compared until then, 0 repaired; run it again" in done.error
    await sides.well_again()
    async with sides.rows_refuse():
        assert "run it again" in (await sides.run("sync", "--repair")).error
    assert (await sides.row("key_same"))["name"] == "same"

    async def circle(*_: object, **__: object) -> KeyPage:
        return KeyPage([], "again")

    monkeypatch.setattr(KeyAdmin, "keys_page", circle)
    with pytest.raises(DependencyDown, match="its list of keys does not end"):
        await synced(sides)
