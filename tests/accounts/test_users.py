"""`gateway users`: what the commands say is what is in the database, and nothing wrong gets in."""

import json
import re
from typing import Any

import pytest

from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts
from gateway.config.settings import KeySettings
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.support.invoke import gateway

Env = dict[str, str]


@pytest.fixture
def env(database_url: str) -> Env:
    return {"DATABASE_URL": database_url}


async def made(env: Env, *arguments: str) -> dict[str, Any]:
    """What `users create --json` says."""
    done = await gateway(env, "users", "create", *arguments, "--json")
    assert done.error == ""
    user: dict[str, Any] = json.loads(done.out)
    return user


async def stored(pool: Pool) -> list[tuple[Any, ...]]:
    """Every user as the table has them."""
    rows = await pool.fetch("select email, name, stripe_customer_id, is_active from users order by created_at, id")
    return [tuple(row.values()) for row in rows]


async def test_a_user_is_made_once_in_any_case(env: Env, pool: Pool) -> None:
    ann = await made(env, " Ann@Example.com ", "--name", " Ann [red] ", "--stripe-customer", "cus_Ann1")
    assert await stored(pool) == [("ann@example.com", "Ann [red]", "cus_Ann1", True)]
    assert str(await pool.fetchval("select id from users")) == ann["user_id"]
    again = await gateway(env, "users", "create", "ANN@example.com")
    assert (again.status, again.out) == (1, "")
    assert again.error == f"EMAIL: there is a user ann@example.com already ({ann['user_id']})"
    plain = await gateway(env, "users", "create", "bob@example.com")
    for said in ("Made user bob@example.com", "without a Stripe customer", "accrues"):
        assert said in plain.out
    await gateway(env, "users", "disable", "bob@example.com")
    assert (
        "is disabled: `gateway users enable` ends that"
        in (await gateway(env, "users", "create", "Bob@example.com")).error
    )
    assert len(await stored(pool)) == 2


WRONG: list[tuple[list[str], str]] = [
    (["create", "ann"], "EMAIL: 'ann' is not an e-mail address"),
    (["create", "a b@example.com"], "is not an e-mail address"),
    (["create", "a@b@example.com"], "is not an e-mail address"),
    (["create", "ann@example..com"], "is not an e-mail address"),
    (["create", f"{'a' * 250}@example.com"], "is not an e-mail address"),
    (["create", "ann\x00@example.com"], "is not an e-mail address"),
    (["create", "ann@example.com", "--name", ""], "--name: 1 to 255 printable characters"),
    (["create", "ann@example.com", "--name", "a\nb"], "--name: 1 to 255 printable characters"),
    (["create", "ann@example.com", "--name", "n" * 256], "--name: 1 to 255 printable characters"),
    (["create", "ann@example.com", "--stripe-customer", "sk_live_canary"], "--stripe-customer: an id .* cus_"),
    (["create", "ann@example.com", "--stripe-customer", "cus_"], "--stripe-customer: an id .* cus_"),
    (["create", "OLD@example.com"], "there is a user old@example.com already"),
    (["set", "old@example.com"], "nothing to set"),
    (["set", "old@example.com", "--stripe-customer", "cus_2", "--no-stripe-customer"], "contradict each other"),
    (["set", "old@example.com", "--stripe-customer", ""], "--stripe-customer: an id .* cus_"),
    (["set", "old@example.com", "--stripe-customer", "acct_2"], "--stripe-customer: an id .* cus_"),
    (["set", "eve@example.com", "--name", "Eve"], "WHO: there is no user 'eve@example.com'"),
    (["disable", "eve@example.com"], "WHO: there is no user"),
    (["enable", "00000000-0000-4000-8000-000000000000"], "WHO: there is no user"),
    (["disable", "old\x00"], "WHO: there is no user"),
]


async def test_what_is_wrong_is_named_and_changes_nothing(env: Env, ledger: Ledger, pool: Pool) -> None:
    await Accounts(ledger.pool).create_user("old@example.com", stripe_customer_id="cus_1")
    await Accounts(ledger.pool).create_user("two@example.com")
    before = await stored(pool)
    for arguments, says in WRONG:
        done = await gateway(env, "users", *arguments)
        assert (done.status, done.out, await stored(pool)) == (1, "", before), arguments
        assert re.search(says, done.error), (arguments, done.error)
        assert "sk_live_canary" not in done.error


async def test_one_customer_pays_for_many_users(env: Env, ledger: Ledger, pool: Pool) -> None:
    await Accounts(ledger.pool).create_user("old@example.com", stripe_customer_id="cus_1")
    await Accounts(ledger.pool).create_user("two@example.com")
    for arguments in (["create", "ann@example.com"], ["set", "two@example.com"]):
        assert (await gateway(env, "users", *arguments, "--stripe-customer", "cus_1")).status == 0
    assert await pool.fetchval("select count(*) from users where stripe_customer_id = 'cus_1'") == 3
    assert await pool.fetchval("select count(*) from customers") == 1


async def test_the_list_counts_keys_that_work(env: Env, ledger: Ledger, pool: Pool) -> None:
    ann, bob = [await Accounts(ledger.pool).create_user(f"{name}@example.com") for name in ("ann", "bob")]
    for number, state in enumerate(("true, null", "true, '2999-01-01'", "true, '2020-01-01'", "false, null")):
        await pool.execute(
            "insert into api_keys (user_id, unkey_key_id, is_active, expires_at) "
            f"select $1, $2, is_active, ends::timestamptz from (values ({state})) as state(is_active, ends)",
            ann, f"key_{number}",
        )  # fmt: skip
    await gateway(env, "users", "disable", bob)
    rows = json.loads((await gateway(env, "users", "list", "--json")).out)
    assert [(row["user_id"], row["active_keys"]) for row in rows] == [(ann, 2)]
    rows = json.loads((await gateway(env, "users", "list", "--all", "--json")).out)
    assert [(row["email"], row["is_active"], row["active_keys"]) for row in rows] == [
        ("ann@example.com", True, 2), ("bob@example.com", False, 0),
    ]  # fmt: skip
    table = (await gateway(env, "users", "list", "--all")).out
    for shown in (ann, bob, "ann@example.com", "no "):
        assert shown in table


async def test_disable_and_enable_say_when(env: Env, ledger: Ledger, pool: Pool) -> None:
    ann = await Accounts(ledger.pool).create_user("ann@example.com")
    await Accounts(ledger.pool).link_key(ann, "key_ann")
    for who, verb, active, said in (
        ("ANN@example.com", "disable", False, ["is disabled.", "within 30 s", "630 s if Unkey does not answer"]),
        (ann, "disable", False, ["is disabled already."]),
        (ann, "enable", True, ["is enabled.", "within 4 s (keys.negative_s)"]),
    ):
        done = await gateway(env | {"KEYS__NEGATIVE_S": "4"}, "users", verb, who)
        assert (done.status, await pool.fetchval("select is_active from users")) == (0, active)
        for text in said:
            assert text in done.out
        identity = await KeyOwners(ledger.pool).identity(ann, "key_ann")
        assert identity is not None
        assert identity.is_active == active
    assert KeySettings().fresh_s + KeySettings().stale_s == 630


async def test_a_stripe_customer_is_linked_moved_and_unlinked(env: Env, pool: Pool) -> None:
    await made(env, "ann@example.com", "--name", "Ann")
    for options, customer, name, said in (
        (["--stripe-customer", "cus_1"], "cus_1", "Ann", "what they use is reported to Stripe"),
        (["--stripe-customer", "cus_1"], "cus_1", "Ann", "nothing changed"),
        (["--stripe-customer", "cus_2", "--name", "Annie"], "cus_2", "Annie", "It was cus_1, who pays for what was"),
        (["--no-stripe-customer"], None, "Annie", "accrues until one is set"),
        (["--name", ""], None, None, "the name is (none), it was Annie"),
    ):
        done = await gateway(env, "users", "set", "ann@example.com", *options)
        assert (done.error, await stored(pool)) == ("", [("ann@example.com", name, customer, True)])
        assert said in done.out


async def test_no_users_and_no_database_are_reported(env: Env) -> None:
    assert "gateway users create EMAIL" in (await gateway(env, "users", "list", "--all")).out
    assert (await gateway({}, "users", "list")).error.startswith("DATABASE_URL is not set")
    away = await gateway({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "users", "list")
    assert (away.status, away.error[:9]) == (1, "postgres:")
