"""`keys list`, `show` and `revoke` against a real database and the Unkey stand-in: both sides, and each one away."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from gateway.access.admission import Admission
from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts
from gateway.config.settings import KeySettings, LimitSettings
from gateway.keys.listing import state_of
from gateway.keys.verify import Keys
from gateway.kit.errors import ApiError
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.sandbox.unkey.keys import NamedLimit
from gateway.stores.postgres import Pool
from tests.support.invoke import Done, gateway
from tests.support.stand_ins import Clock, asked_by, control, sandbox_at

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SECRET = "sk_canary_0123456789"
Env = dict[str, str]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW.timestamp())) as running:
        yield running


@pytest.fixture
def env(database_url: str, sandbox: Sandbox) -> Env:
    return {
        "DATABASE_URL": database_url,
        "UNKEY_ROOT_KEY": credentials.UNKEY_ROOT_KEY,
        "UNKEY_API_ID": credentials.UNKEY_API_ID,
        "UNKEY_BASE_URL": sandbox.unkey_base_url,
    }


@pytest.fixture
async def key(sandbox: Sandbox, ledger: Ledger) -> tuple[str, str]:
    """A key of ann's at Unkey (`key_ann`) and here: our id of it, and ann's."""
    user = await Accounts(ledger.pool).create_user("ann@example.com")
    sandbox.unkey.add_key(
        SECRET, api_id=credentials.UNKEY_API_ID, key_id="key_ann", external_id=user, name="[red]laptop",
        remaining=1000, permissions=["chat.write"], roles=["tester"],
        ratelimits=[NamedLimit("rpm", 60, 60_000, "rl_1", True)],
    )  # fmt: skip
    return await Accounts(ledger.pool).link_key(user, "key_ann", name="[red]laptop"), user


async def listed(env: Env, *options: str) -> list[tuple[str, str]]:
    """Unkey's id and the state of each key that is listed."""
    done = await gateway(env, "keys", "list", "--json", *options)
    assert done.error == ""
    return [(row["key_id"], row["state"]) for row in json.loads(done.out)]


async def test_keys_are_listed_with_their_state(env: Env, ledger: Ledger, pool: Pool, key: tuple[str, str]) -> None:
    bob = await Accounts(ledger.pool).create_user("bob@example.com")
    await Accounts(ledger.pool).link_key(bob, "key_old", name="old", expires_at=NOW - timedelta(days=4000))
    await Accounts(pool).revoke_key(await Accounts(ledger.pool).link_key(bob, "key_lost", name="lost"))
    await Accounts(ledger.pool).link_key(bob, "key_bob")
    assert await listed(env) == [("key_ann", "active"), ("key_bob", "active")]
    of_bob = [("key_old", "expired"), ("key_lost", "revoked"), ("key_bob", "active")]
    assert await listed(env, "--all", "--user", "BOB@example.com") == of_bob
    assert await listed(env, "--user", key[1]) == [("key_ann", "active")]
    await Accounts(pool).set_active(bob, is_active=False)
    assert await listed(env, "--user", bob) == [("key_bob", "user disabled")]
    table = (await gateway(env, "keys", "list")).out
    for shown in ("key_ann", "[red]laptop", "ann@example.com", "user disabled", "2 revoked or expired not shown"):
        assert shown in table
    assert "key_lost" not in table
    assert "lost" in (await gateway(env, "keys", "list", "--all")).out
    refused = await gateway(env, "keys", "list", "--user", "eve@example.com")
    assert (refused.status, refused.error.partition(";")[0]) == (1, "user: there is no user eve@example.com")


async def test_an_empty_list_says_how_to_make_one(env: Env) -> None:
    assert "gateway keys create --user EMAIL" in (await gateway(env, "keys", "list")).out
    assert json.loads((await gateway(env, "keys", "list", "--json")).out) == []


async def test_a_key_expires_at_its_instant(pool: Pool, ledger: Ledger) -> None:
    await Accounts(ledger.pool).link_key(
        await Accounts(ledger.pool).create_user("ann@example.com"), "key_ann", expires_at=NOW
    )
    row = await Accounts(pool).key("key_ann")
    assert row is not None
    assert [state_of(row, NOW + timedelta(microseconds=us)) for us in (-1, 0)] == ["active", "expired"]


async def test_show_has_both_sides_and_nothing_secret(env: Env, key: tuple[str, str]) -> None:
    by_ours = await gateway(env, "keys", "show", key[0], "--json")
    by_unkeys = await gateway(env, "keys", "show", "key_ann", "--json")
    assert by_ours == by_unkeys
    document = json.loads(by_ours.out)
    assert (document["api_key_id"], document["user_id"], document["state"]) == (*key, "active")
    unkey = document["unkey"]
    assert (unkey["enabled"], unkey["credits"], unkey["permissions"], unkey["roles"]) == (
        True, 1000, ["chat.write"], ["tester"],
    )  # fmt: skip
    rpm = {"name": "rpm", "limit": 60, "duration_ms": 60_000, "auto_apply": True, "of": "key"}
    assert unkey["ratelimits"] == [rpm]
    assert (document["differences"], document["drift"], document["unkey_problem"]) == ([], [], None)
    table = await gateway(env, "keys", "show", "key_ann")
    for shown in ("[red]laptop", "enabled", "1,000", "rpm: 60 per 60,000 ms", "chat.write", "tester"):
        assert shown in table.out
    assert SECRET[:4] not in by_ours.out + table.out  # not even how it begins


@pytest.mark.parametrize(
    ("change", "trouble", "says"),
    [
        ({"UNKEY_ROOT_KEY": ""}, {}, "UNKEY_ROOT_KEY is not set"),
        ({"UNKEY_ROOT_KEY": "unkey_wrong"}, {}, "UNKEY_ROOT_KEY is refused by Unkey (401)"),
        ({}, {"status": 429}, "unkey: 429"),
    ],
)
async def test_show_without_unkey_shows_ours_and_fails(
    env: Env, sandbox: Sandbox, key: tuple[str, str], change: Env, trouble: dict[str, Any], says: str
) -> None:
    if trouble:
        await control(sandbox, "unkey", **trouble)
    done = await gateway(env | change, "keys", "show", "key_ann", "--json")
    document = json.loads(done.out)
    assert (done.status, document["api_key_id"], document["unkey"]) == (1, key[0], None)
    assert done.error.startswith(says)
    assert document["unkey_problem"] == done.error
    assert "unkey_wrong" not in done.error


async def lets_in(sandbox: Sandbox, pool: Pool) -> tuple[bool, bool]:
    """Whether Unkey, and whether our row, lets key_ann in."""
    kept = sandbox.unkey.kept.keys.get("key_ann")
    return kept is not None and kept.enabled, await pool.fetchval("select is_active from api_keys")


async def test_revoke_ends_a_key_on_both_sides_once(
    env: Env, sandbox: Sandbox, pool: Pool, key: tuple[str, str]
) -> None:
    first = await gateway(env | {"KEYS__FRESH_S": "7", "KEYS__STALE_S": "20"}, "keys", "revoke", key[0])
    assert (first.status, await lets_in(sandbox, pool)) == (0, (False, False))
    for said in ("Revoked key_ann ([red]laptop) of ann@example.com", "within 7 s", "27 s if Unkey does not answer"):
        assert said in first.out
    at = await pool.fetchval("select revoked_at from api_keys")
    again = await gateway(env, "keys", "revoke", "key_ann")
    assert (again.status, await pool.fetchval("select revoked_at from api_keys")) == (0, at)
    assert "had been revoked before" in again.out
    document = json.loads((await gateway(env, "keys", "revoke", "key_ann", "--json")).out)
    assert datetime.fromisoformat(document["revoked_at"]) == at
    assert (document["was_active"], document["may_work_for_s"]) == (False, 30)


async def test_a_key_that_unkey_has_forgotten_is_marked_all_the_same(
    env: Env, sandbox: Sandbox, pool: Pool, key: tuple[str, str]
) -> None:
    await control(sandbox, "unkey", "/revoke", key_id="key_ann")
    done = await gateway(env, "keys", "revoke", key[0])
    assert (done.status, await lets_in(sandbox, pool)) == (0, (False, False))
    assert "Unkey does not know it" in done.out


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ({"status": 429}, ["unkey: 429", "did not confirm that key_ann is disabled", "run it again"]),
        ({"body": "{}"}, ["a form that its SDK does not know", "take it to work"]),
        (None, ["UNKEY_ROOT_KEY", "403", "was not disabled at Unkey", "api.*.update_key"]),
    ],
)
async def test_nothing_is_called_revoked_that_unkey_has_not_disabled(
    env: Env, sandbox: Sandbox, pool: Pool, trouble: dict[str, Any] | None, says: list[str]
) -> None:
    if trouble is None:
        await control(sandbox, "unkey", "/root", permissions=["verify_key", "read_key"])
    else:
        await control(sandbox, "unkey", **trouble)
    done = await gateway(env, "keys", "revoke", "key_ann")
    assert (done.status, done.out, await pool.fetchval("select is_active from api_keys")) == (1, "", True)
    for said in says:
        assert said in done.error
    await control(sandbox, "unkey", method="DELETE")
    assert (await gateway(env, "keys", "revoke", "key_ann")).status == 0
    assert await lets_in(sandbox, pool) == (False, False)


async def test_a_database_failure_after_unkey_is_reported(
    env: Env, sandbox: Sandbox, pool: Pool, key: tuple[str, str]
) -> None:
    await pool.execute("create trigger broken before update on api_keys for each row execute function refuse_change()")
    done = await gateway(env, "keys", "revoke", key[0])
    assert (done.status, await lets_in(sandbox, pool)) == (1, (False, True))
    assert "key_ann is disabled at Unkey, so it is refused all the same" in done.error
    assert "run this command again" in done.error
    await pool.execute("drop trigger broken on api_keys")
    assert (await gateway(env, "keys", "revoke", key[0])).status == 0
    assert await lets_in(sandbox, pool) == (False, False)


IN_THE_WAY: list[tuple[Env, str, str]] = [
    ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "key_ann", "Nothing was changed: the key works as before"),
    ({"DATABASE_URL": ""}, "key_ann", "DATABASE_URL is not set"),
    ({"UNKEY_ROOT_KEY": ""}, "key_ann", "UNKEY_ROOT_KEY is not set"),
    ({}, SECRET, "key: no key with this id is linked here"),
    ({}, "key\x00ann", "key: give its id"),
    ({}, "", "key: give its id"),
]


@pytest.mark.usefixtures("key")
async def test_what_stands_in_the_way_of_revoking_is_named(env: Env, sandbox: Sandbox, pool: Pool) -> None:
    for change, reference, says in IN_THE_WAY:
        done = await gateway(env | change, "keys", "revoke", reference)
        assert (done.status, await lets_in(sandbox, pool)) == (1, (True, True)), says
        assert says in done.error
        assert SECRET not in done.error


@pytest.mark.parametrize(
    ("change", "unkey_answers", "works_until_s"),
    [
        ("revoke", True, 30),
        ("revoke", False, 630),
        ("disable", True, 30),
        ("disable", False, 630),
    ],
)
async def test_the_proxy_refuses_within_the_time_that_is_printed(
    env: Env,
    sandbox: Sandbox,
    ledger: Ledger,
    key: tuple[str, str],
    change: str,
    unkey_answers: bool,
    works_until_s: int,
) -> None:
    clock = Clock(0.0)
    async with aiohttp.ClientSession() as session:
        keys = Keys(session, sandbox.unkey_base_url, credentials.UNKEY_ROOT_KEY, timeout_s=5)
        asked, now, settings = asked_by(keys, clock), NOW.timestamp(), (KeySettings(), LimitSettings())
        owners = KeyOwners(ledger.pool)
        admission = Admission(
            asked, owners, *settings, pepper=b"p", monotonic=clock, unix_s=lambda: now + clock.now, draw=lambda _: 0
        )
        assert (await admission.admit(SECRET)).user_id == key[1]
        command = ["keys", "revoke", "key_ann"] if change == "revoke" else ["users", "disable", "ann@example.com"]
        done: Done = await gateway(env, *command)
        assert f"{works_until_s} s" in done.out
        if not unkey_answers:
            await control(sandbox, "unkey", status=503)
        clock.now = 0.5  # before the key is asked for again ahead of time
        await admission.admit(SECRET)
        if not unkey_answers:
            clock.now = works_until_s - 1.0
            await admission.admit(SECRET)
        clock.now = works_until_s
        with pytest.raises(ApiError) as refused:
            await admission.admit(SECRET)
        assert refused.value.status == ((401 if change == "revoke" else 403) if unkey_answers else 503)
