"""`keys set`, `disable` and `enable`: both sides in step, what others left at a key untouched, each side failing."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from gateway.config.settings import LimitSettings
from gateway.keys.permissions import allowed_of
from gateway.keys.verify import Keys
from gateway.ledger.store import Ledger
from gateway.limits.key_limits import build_key_limits
from gateway.sandbox import credentials
from gateway.sandbox.unkey.keys import NamedLimit
from gateway.stores.postgres import Pool
from tests.keys.unkey_at_work import KeySides, key_sides_at

FOREIGN = NamedLimit("nightly", 5, 86_400_000, "rl_nightly", False)


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        await made.key(
            "ann", permissions=["usage.read", "openai.*", "openai.chat"], ratelimits=[FOREIGN], meta={"plan": "pro"}
        )
        yield made


async def test_what_is_set_holds_at_unkey_and_here(sides: KeySides) -> None:
    done = await sides.json(
        "set", "key_ann", "--name", "desk", "--description", "at home", "--expires", "30d",
        "--models", "gpt-5, gpt-4.1*", "--endpoints", "responses", "--rpm", "60", "--tpm", "9000", "--concurrent", "3",
    )  # fmt: skip
    kept, row = sides.kept("key_ann"), await sides.row("key_ann")
    assert kept.permissions == ["usage.read", "openai.model.gpt-5", "openai.model.gpt-4.1*", "openai.responses"]
    assert [(one.name, one.limit, one.duration, one.auto_apply) for one in kept.ratelimits] == [
        ("nightly", 5, 86_400_000, False), ("key-requests", 60, 60_000, True), ("key-tokens", 9000, 60_000, True),
    ]  # fmt: skip
    assert (kept.meta, kept.name, kept.enabled) == ({"plan": "pro", "concurrent": 3, "bound": True}, "desk", True)
    assert (row["name"], row["description"], row["is_active"]) == ("desk", "at home", True)
    assert kept.expires == int(row["expires_at"].timestamp() * 1000)
    assert timedelta(days=30) <= row["expires_at"] - sides.began_at < timedelta(days=31)
    assert done["changed"]["models"] == {"from": None, "to": ["gpt-4.1*", "gpt-5"]}
    assert done["changed"]["requests_per_minute"] == {"from": None, "to": 60}
    async with aiohttp.ClientSession() as session:  # what a proxy makes of it
        keys = Keys(session, sides.sandbox.unkey_base_url, credentials.UNKEY_ROOT_KEY, timeout_s=5)
        verdict = await keys.verify("sk_ann_canary_012")
    key_limits, allowed = build_key_limits(verdict, "[]", LimitSettings()), allowed_of(verdict.permissions or ())
    assert key_limits is not None
    assert allowed is not None
    assert key_limits.of_key == ((60, 60.0), (9000, 60.0), 3)
    assert (allowed.endpoint("responses"), allowed.endpoint("chat"), allowed.model("gpt-5-mini")) == (
        True,
        False,
        False,
    )
    shown = await sides.json("show", "key_ann")
    assert (shown["models"], shown["endpoints"], shown["concurrent"]) == (["gpt-4.1*", "gpt-5"], ["responses"], 3)
    assert (shown["tokens_per_minute"], shown["differences"]) == (9000, [])
    table = (await sides.run("list", "--limits")).out
    for said in ("gpt-4.1*, gpt-5", "responses", "60 rpm · 9,000 tpm · 3 at a time"):
        assert said in table
    assert (await sides.json("list"))[0].keys().isdisjoint({"models"})


async def test_what_is_cleared_is_gone_and_the_rest_stays(sides: KeySides) -> None:
    kept = sides.kept("key_ann")
    kept.expires, kept.meta = int(sides.began_at.timestamp() * 1000) + 10**9, {"plan": "pro", "concurrent": 2}
    kept.permissions = ["usage.read", "openai.model.gpt-5", "openai.chat"]
    kept.ratelimits += [
        NamedLimit(name, 9, 60_000, f"rl_{name}", True) for name in ("requests", "tokens", "concurrent")
    ]
    await sides.run("set", "key_ann", "--all-models", "--no-tpm", "--no-concurrent", "--description", "x")
    assert kept.permissions == ["usage.read", "openai.chat"]
    assert [one.name for one in kept.ratelimits] == ["nightly", "requests"]
    assert (kept.meta, kept.expires is None, kept.name) == ({"plan": "pro", "bound": True}, False, "ann")
    told = await sides.run("set", "key_ann", "--all-endpoints", "--no-rpm", "--no-expires", "--name", "")
    assert "requests_per_minute: 9 → (none)" in told.out
    kept = sides.kept("key_ann")
    assert (kept.permissions, kept.ratelimits, kept.expires, kept.name) == (["usage.read"], [FOREIGN], None, None)
    row = await sides.row("key_ann")
    assert (row["name"], row["description"], row["expires_at"]) == (None, "x", None)
    await sides.run("set", "key_ann", "--description", "")
    assert (await sides.row("key_ann"))["description"] is None
    assert "it was so before" in (await sides.run("set", "key_ann", "--no-rpm")).out
    kept.roles = ["[red]team"]
    assert "It has the roles [red]team" in (await sides.run("set", "key_ann", "--models", "gpt-5")).out


WRONG: list[tuple[list[str], str]] = [
    ([], "nothing to set"),
    (["--rpm", "5", "--no-rpm"], "--rpm and --no-rpm contradict"),
    (["--models", "gpt-5", "--all-models"], "--models and --all-models contradict"),
    (["--expires", "1d", "--no-expires"], "--expires and --no-expires contradict"),
    (["--rpm", "0"], "--rpm: 1 to"),
    (["--tpm", "-5"], "--tpm: 1 to"),
    (["--concurrent", "9999999999"], "--concurrent: 1 to"),
    (["--models", ""], "--models: '' is not a name of a model"),
    (["--models", "gpt-5,,x"], "--models: '' is not a name"),
    (["--models", "a\x1b[0m"], "--models: "),
    (["--endpoints", "chat,videos"], "--endpoints: 'videos' is not one of chat"),
    (["--expires", "yesterday"], "--expires: 'yesterday' is neither"),
    (["--expires", "2020-01-01"], "--expires: '2020-01-01' is not in the future"),
    (["--name", "n" * 256], "name: 1 to 255"),
    (["--name", "a\x00b"], "name: printable"),
    (["--description", "d" * 1001], "--description: 1 to 1000"),
]


async def test_what_is_wrong_is_named_and_changes_nothing(sides: KeySides) -> None:
    before = json.dumps(sides.kept("key_ann").permissions), await sides.row("key_ann")
    for options, says in WRONG:
        done = await sides.run("set", "key_ann", *options)
        assert (done.status, done.out) == (1, ""), options
        assert done.error.startswith(says), (options, done.error)
    assert (json.dumps(sides.kept("key_ann").permissions), await sides.row("key_ann")) == before
    for unknown in ("sk_ann_canary_012", "key_none", "a\x00b"):
        done = await sides.run("set", unknown, "--rpm", "5")
        assert done.error.startswith("key: ")
        assert "sk_ann" not in done.error


FAILS: list[tuple[dict[str, Any] | None, str]] = [
    ({"status": 429, "endpoint": "keys.getKey"}, "Nothing was changed"),
    ({"status": 429, "endpoint": "keys.updateKey"}, "did not confirm that key_ann is {done}"),
    ({"body": "{}", "endpoint": "keys.updateKey"}, "did not confirm that key_ann is {done}"),
    ({"drop": True, "endpoint": "keys.updateKey"}, "did not confirm that key_ann is {done}"),
    (None, "the root key needs api.*.update_key"),
]


async def test_an_unkey_that_fails_leaves_ours_as_it_was(sides: KeySides) -> None:
    before = await sides.row("key_ann")
    for command in (["set", "key_ann", "--name", "desk"], ["disable", "key_ann"], ["enable", "key_ann"]):
        for trouble, says in FAILS:
            if trouble is None:
                sides.sandbox.unkey.permissions -= {"update_key"}
            else:
                await sides.trouble(**trouble)
            done = await sides.run(*command)
            await sides.well_again()
            if command[0] != "set" and "keys.getKey" in str(trouble):
                assert done.status == 0  # it needs no description
                await sides.run("enable", "key_ann")
                before = await sides.row("key_ann")
                continue
            assert (done.status, done.out, await sides.row("key_ann")) == (1, "", before), (command, trouble)
            assert says.format(done="changed" if command[0] == "set" else f"{command[0]}d") in done.error
            assert ("update_key" in done.error) == (trouble is None)
            assert credentials.UNKEY_ROOT_KEY not in done.error
    assert (await sides.run("set", "key_ann", "--name", "desk")).status == 0
    assert ((await sides.row("key_ann"))["name"], sides.kept("key_ann").name) == ("desk", "desk")


async def test_a_database_failure_after_unkey_is_reported(sides: KeySides) -> None:
    async with sides.rows_refuse():
        done = await sides.run("set", "key_ann", "--name", "desk")
        assert done.status == 1
        assert "key_ann is changed at Unkey, but not here: run this command again" in done.error
        for verb in ("disable", "enable"):
            done = await sides.run(verb, "key_ann")
            assert f"key_ann is {verb}d at Unkey, but could not be marked so here" in done.error
    assert (await sides.run("set", "key_ann", "--name", "desk")).status == 0
    assert (await sides.row("key_ann"))["name"] == "desk"


async def test_a_key_is_disabled_and_enabled_on_both_sides(sides: KeySides) -> None:
    for verb, repeated, active in (("disable", False, False), ("disable", True, False), ("enable", False, True)):
        done = await sides.run(verb, "key_ann")
        assert (done.error, await sides.lets_in("key_ann")) == ("", (active, active))
        assert ("already" in done.out) == repeated
    assert (await sides.row("key_ann"))["revoked_at"] is None
    document = await sides.json("disable", "key_ann")
    assert (document["state"], document["was_active"], document["takes_effect_within_s"]) == ("disabled", True, 30)
    assert [row["state"] for row in await sides.json("list")] == ["disabled"]
    assert (await sides.json("enable", "key_ann"))["takes_effect_within_s"] == 10


async def test_a_revoked_key_stays_revoked(sides: KeySides) -> None:
    await sides.run("revoke", "key_ann")
    for command in (["enable", "key_ann"], ["set", "key_ann", "--rpm", "5"]):
        done = await sides.run(*command)
        assert (done.status, await sides.lets_in("key_ann")) == (1, (False, False))
        assert "key_ann is revoked, and that is for good" in done.error
    told = await sides.run("disable", "key_ann")
    assert (told.status, "which is more than disabled" in told.out) == (0, True)
    assert (await sides.json("list", "--all"))[0]["state"] == "revoked"


async def test_a_key_that_is_revoked_while_it_is_enabled_ends_up_refused(sides: KeySides, pool: Pool) -> None:
    await sides.run("disable", "key_ann")
    await pool.execute("create function revoke_first() returns trigger language plpgsql as 'begin return null; end'")
    await pool.execute("create trigger first before update on api_keys for each row execute function revoke_first()")
    done = await sides.run("enable", "key_ann")
    assert (done.status, await sides.lets_in("key_ann")) == (1, (False, False))
    assert "key_ann is revoked" in done.error


async def test_a_key_that_unkey_has_forgotten_can_be_disabled_only(sides: KeySides) -> None:
    del sides.sandbox.unkey.kept.keys["key_ann"]
    for command in (["enable", "key_ann"], ["set", "key_ann", "--rpm", "5"]):
        done = await sides.run(*command)
        assert "Unkey does not know key_ann" in done.error
    told = await sides.run("disable", "key_ann")
    assert (told.status, await sides.lets_in("key_ann")) == (0, (False, False))
    assert "Unkey does not know it" in told.out


async def test_ids_are_whole_on_a_narrow_terminal(sides: KeySides) -> None:
    row = await sides.row("key_ann")
    sides.kept("key_ann").permissions = [f"openai.model.gpt-{number}" for number in range(9)]
    sides.env |= {"COLUMNS": "72"}
    shown = (await sides.run("show", "key_ann")).out
    folded = "".join(line[10:41].strip() for line in shown.splitlines())
    assert "…" not in shown
    assert str(row["id"]) in folded or str(row["id"]) in shown
    for options in ([], ["--limits"]):
        assert "key_ann" in (await sides.run("list", *options)).out
