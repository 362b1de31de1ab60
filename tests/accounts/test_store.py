"""Users, keys, meetings and whose they are, as the ledger edge answers it."""

from dataclasses import astuple
from datetime import timedelta

import pytest

from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts
from gateway.ledger.store import Ledger
from gateway.meetings.call_meetings import CallMeetings
from gateway.stores.postgres import Pool, open_pool
from tests.conftest import METER, WINDOW_S
from tests.support.events import AT, linked


@pytest.mark.parametrize("option", ["", "&pgbouncer=true"])
async def test_identity(database_url: str, option: str) -> None:
    pool = await open_pool(database_url + option)
    ledger = Ledger(pool, meter=METER, window_s=WINDOW_S)
    user, key = await linked(ledger)
    other = await Accounts(ledger.pool).create_user("b@example.com", stripe_customer_id="cus_b")
    by_user, by_key = (
        await KeyOwners(ledger.pool).identity(user, "key_a"),
        await KeyOwners(ledger.pool).identity(None, "key_a"),
    )
    assert by_user is not None
    assert by_user == by_key
    assert astuple(by_user) == (user, True, key, True, None, None, None, "[]")
    unlinked = await KeyOwners(ledger.pool).identity(other, "key_nobody_linked")
    assert unlinked is not None
    assert astuple(unlinked) == (other, True, None, None, None, None, "cus_b", "[]")
    # Our own row is the stronger fact, whatever Unkey's externalId says: another user of ours, or another system's id.
    for external_id in (other, "user_2abc", "00000000-0000-7000-8000-00000000000f"):
        assert await KeyOwners(ledger.pool).identity(external_id, "key_a") == by_key
    assert await KeyOwners(ledger.pool).identity(None, "key\x00\ud800") is None
    for nobody in (None, "not-a-uuid", key):
        assert await KeyOwners(ledger.pool).identity(nobody, "key_nobody_linked") is None
    revoked_at = await Accounts(pool).revoke_key(key)
    assert revoked_at is not None
    assert await Accounts(pool).revoke_key(key) == revoked_at  # idempotent: the first one wins
    assert await Accounts(pool).revoke_key(user) is None
    await pool.execute("update users set is_active = false where id = $1", user)
    gone = await KeyOwners(ledger.pool).identity(user, "key_a")
    assert gone is not None
    assert (gone.is_active, gone.key_is_active) == (False, False)
    await pool.close()


async def test_an_expired_key_is_not_active(ledger: Ledger) -> None:
    user = await Accounts(ledger.pool).create_user("a@example.com")
    await Accounts(ledger.pool).link_key(
        user, "key_old", name="old", description="d", expires_at=AT - timedelta(days=4000)
    )
    identity = await KeyOwners(ledger.pool).identity(user, "key_old")
    assert identity is not None
    assert identity.key_is_active is False


async def test_users_and_keys_are_made_once(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(ledger.pool).create_user("Some.One@Example.com")
    assert await Accounts(ledger.pool).create_user("some.one@example.com", stripe_customer_id="cus_1") == user
    assert await Accounts(ledger.pool).create_user("SOME.ONE@example.com", stripe_customer_id="cus_2") == user
    assert await pool.fetchval("select stripe_customer_id from users") == "cus_1"
    key = await Accounts(ledger.pool).link_key(user, "key_1", name="one")
    assert await Accounts(ledger.pool).link_key(user, "key_1", name="two") == key
    with pytest.raises(ValueError, match="another user"):
        await Accounts(ledger.pool).link_key(await Accounts(ledger.pool).create_user("b@example.com"), "key_1")
    assert [(row.id, row.name, row.email) for row in await Accounts(pool).keys()] == [
        (key, "two", "some.one@example.com")
    ]
    assert await Accounts(pool).keys("00000000-0000-7000-8000-00000000000f") == []


async def test_a_meeting_by_each_of_its_names(ledger: Ledger, pool: Pool) -> None:
    user, _ = await linked(ledger)

    async def meeting(room: str, status: str, daily_id: str | None = None, *, ended: bool = False) -> str:
        made: str = await pool.fetchval(
            "insert into meetings (user_id, room_name, status, daily_meeting_id, started_at, ended_at)"
            " values ($1, $2, $3, $4, now(), case when $5 then now() end) returning id::text",
            user, room, status, daily_id, ended,
        )  # fmt: skip
        return made

    daily = "5d3b1ad4-6bf5-4d49-9fdc-1c1a9f2b2a55"
    over = await meeting("room", "ended", "7a0b1ad4-6bf5-4d49-9fdc-1c1a9f2b2a55", ended=True)
    runs = await meeting("room", "in_progress", daily)
    planned = await meeting("later", "scheduled")
    assert await CallMeetings(ledger.pool).meeting(runs) == (runs, user, False)
    assert await CallMeetings(ledger.pool).meeting(runs.upper()) == (runs, user, False)
    assert await CallMeetings(ledger.pool).meeting(over) == (over, user, False)
    assert await CallMeetings(ledger.pool).meeting(daily) == (runs, user, False)
    assert await CallMeetings(ledger.pool).meeting("room") == (runs, user, True)
    assert await CallMeetings(ledger.pool).meeting(planned) == (planned, user, False)
    for nobody in ("later", "Room", "", "' or 1=1 --", "nul\x00", user, "x" * 300):
        assert await CallMeetings(ledger.pool).meeting(nobody) is None
    # A room that somebody has named like another meeting's id does not take its place.
    await meeting(over, "in_progress")
    assert await CallMeetings(ledger.pool).meeting(over) == (over, user, False)
