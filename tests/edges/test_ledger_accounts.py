"""Users, keys, meetings and whose they are, as the ledger edge answers it."""

from dataclasses import astuple
from datetime import timedelta

import pytest

from gateway.edges.accounts import Accounts
from gateway.edges.ledger import Ledger, Pool, open_pool
from tests.conftest import METER, WINDOW_S
from tests.events import AT, linked


@pytest.mark.parametrize("option", ["", "&pgbouncer=true"])
async def test_identity(database_url: str, option: str) -> None:
    pool = await open_pool(database_url + option)
    ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
    user, key = await linked(ledger)
    other = await ledger.create_user("b@example.com", stripe_customer_id="cus_b")
    by_user, by_key = await ledger.identity(user, "key_a"), await ledger.identity(None, "key_a")
    assert by_user is not None
    assert by_user == by_key
    assert astuple(by_user) == (user, True, key, True, None, "[]")
    unlinked = await ledger.identity(other, "key_nobody_linked")
    assert unlinked is not None
    assert astuple(unlinked) == (other, True, None, None, "cus_b", "[]")
    foreign = await ledger.identity(other, "key_a")  # Unkey says b, our row says a: never a's key on b's rows
    assert foreign is not None
    assert (foreign.user_id, foreign.api_key_id, foreign.key_is_active) == (other, None, True)
    assert await ledger.identity(None, "key\x00\ud800") is None
    for nobody in (None, "not-a-uuid", key):
        assert await ledger.identity(nobody, "key_nobody_linked") is None
    revoked_at = await Accounts(pool).revoke_key(key)
    assert revoked_at is not None
    assert await Accounts(pool).revoke_key(key) == revoked_at  # the first time counts
    assert await Accounts(pool).revoke_key(user) is None
    await pool.execute("update users set is_active = false where id = $1", user)
    gone = await ledger.identity(user, "key_a")
    assert gone is not None
    assert (gone.is_active, gone.key_is_active) == (False, False)
    await pool.close()


async def test_an_expired_key_is_not_active(ledger: Ledger) -> None:
    user = await ledger.create_user("a@example.com")
    await ledger.link_key(user, "key_old", name="old", description="d", expires_at=AT - timedelta(days=4000))
    identity = await ledger.identity(user, "key_old")
    assert identity is not None
    assert identity.key_is_active is False


async def test_users_and_keys_are_made_once(ledger: Ledger, pool: Pool) -> None:
    user = await ledger.create_user("Some.One@Example.com")
    assert await ledger.create_user("some.one@example.com", stripe_customer_id="cus_1") == user
    assert await ledger.create_user("SOME.ONE@example.com", stripe_customer_id="cus_2") == user
    assert await pool.fetchval("select stripe_customer_id from users") == "cus_1"
    key = await ledger.link_key(user, "key_1", name="one")
    assert await ledger.link_key(user, "key_1", name="two") == key
    with pytest.raises(ValueError, match="another user"):
        await ledger.link_key(await ledger.create_user("b@example.com"), "key_1")
    assert [(row.id, row.name, row.email) for row in await Accounts(pool).keys()] == [
        (key, "two", "some.one@example.com")
    ]
    assert await Accounts(pool).keys("00000000-0000-7000-8000-00000000000f") == []


async def test_meeting_owner(ledger: Ledger, pool: Pool) -> None:
    user, _ = await linked(ledger)
    meeting = await pool.fetchval("insert into meetings (user_id, room_name) values ($1, 'r') returning id::text", user)
    assert await ledger.meeting_owner(meeting) == user
    assert await ledger.meeting_owner(user) is None
    assert await ledger.meeting_owner("r") is None
