"""Freezing against a real PostgreSQL: every nano-dollar is in exactly one place, whoever works at it at once."""

import asyncio
import random
from datetime import timedelta

import asyncpg
import pytest

from gateway.accounts.store import Accounts
from gateway.billing import freezing_sql as sql
from gateway.billing.outbox import Outbox
from gateway.kit.errors import DependencyDown
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import GRACE_S, HANGS_S, HOUR, TEN, accrued_nano, book, customer, oldest_first, one_pending
from tests.conftest import METER
from tests.support.usage import entries, usage


@pytest.fixture
def outbox(pool: Pool) -> Outbox:
    return Outbox(pool)


async def carry_of(pool: Pool, user_id: str) -> int:
    """Nano-USD left over of who pays for this user."""
    return int(
        await pool.fetchval(
            "select nano from billing_carry where customer_id = payer_of($1, now()) and meter = $2", user_id, METER
        )
    )


async def test_a_window_is_frozen_once_its_grace_is_over(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    user = await customer(ledger)
    await book(ledger, user, TEN, 1_234_567, 1_000)
    closes = TEN + HOUR + timedelta(seconds=GRACE_S)
    assert await outbox.freeze_closed(closes - timedelta(microseconds=1), GRACE_S) == (0, 0)
    assert await outbox.freeze_closed(closes, GRACE_S) == (1, 1)
    assert await outbox.freeze_closed(closes, GRACE_S) == (0, 0)
    (held,) = await oldest_first(outbox)
    assert (held.value, held.seq, held.state, held.customer) == (1235, 0, "pending", "cus_1")
    assert held.identifier == f"{METER}:cus_1:{int(TEN.timestamp())}:0"
    assert held.timestamp == TEN + HOUR - timedelta(seconds=1)
    assert await carry_of(pool, user) == 567


async def test_late_usage_is_the_next_seq_and_the_carry_goes_on(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    user = await customer(ledger)
    for now, nano in ((TEN + 2 * HOUR, 1_900), (TEN + 3 * HOUR, 50), (TEN + 4 * HOUR, 60)):
        await book(ledger, user, TEN, nano)
        await outbox.freeze_closed(now, GRACE_S)
    assert [(held.seq, held.value) for held in await oldest_first(outbox)] == [(0, 1), (1, 1)]  # 50 gave no event
    assert await carry_of(pool, user) == 10


async def test_a_window_closed_early_is_never_in_the_future(ledger: Ledger, outbox: Outbox) -> None:
    await book(ledger, await customer(ledger), TEN, 5_000)
    now = TEN + timedelta(minutes=3, microseconds=7)
    assert await outbox.freeze_closed(now, -3600) == (1, 1)
    assert (await oldest_first(outbox))[0].timestamp == TEN + timedelta(minutes=3)


async def test_corrections_below_zero_are_sent_as_such(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    user = await customer(ledger)
    first = usage(user, TEN, 3_000)
    await ledger.insert_batch(entries(first))
    await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S)
    await ledger.insert_batch(entries(usage(user, TEN, -2_500, evidence="adjustment", adjusts=first.id)))
    await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S)
    assert [held.value for held in await oldest_first(outbox)] == [3, -3]
    assert await pool.fetchval("select reason from stripe_meter_events order by id desc limit 1") == "correction"
    assert await carry_of(pool, user) == 500


async def test_without_a_stripe_customer_amounts_accrue(ledger: Ledger, outbox: Outbox) -> None:
    user = await Accounts(ledger.pool).create_user("user1@example.com")
    await book(ledger, user, TEN, 5_000)
    assert await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S) == (0, 0)
    assert await outbox.unpaid_users() == 1
    assert await accrued_nano(ledger.pool) == 5_000
    # A customer who comes later does not pay for it unasked (tests/accounts/test_accrued.py).
    await Accounts(ledger.pool).create_user("user1@example.com", stripe_customer_id="cus_late")
    assert await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S) == (0, 0)
    assert await outbox.unpaid_users() == 1


async def test_an_amount_beyond_fifteen_digits_becomes_several_events(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    user = await customer(ledger)
    await pool.execute(
        "insert into billing_windows (customer_id, meter, window_start, window_seconds, billed_nano)"
        " values (payer_of($1, now()), $2, $3, 3600, $4)",
        user, METER, TEN, 2 * 10**18 + 1,
    )  # fmt: skip
    await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S)
    events = await oldest_first(outbox)
    assert [held.seq for held in events] == [0, 1, 2]
    assert sum(held.value for held in events) == 2 * 10**15
    assert max(len(str(held.value)) for held in events) == 15
    assert await carry_of(pool, user) == 1


async def test_many_freezers_beside_the_writer_lose_and_double_nothing(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    users = [await customer(ledger, number) for number in range(3)]
    rng = random.Random(7)
    owed = dict.fromkeys(users, 0)

    async def write() -> None:
        for _ in range(15):
            batch = []
            for _ in range(10):
                user, nano = rng.choice(users), rng.randrange(1, 5_000)
                owed[user] += nano
                batch.append(usage(user, TEN + rng.randrange(4) * HOUR, nano))
            await ledger.insert_batch(entries(*batch))

    async def freeze() -> None:
        for _ in range(15):
            await outbox.freeze_closed(TEN + 10 * HOUR, GRACE_S)

    await asyncio.gather(write(), freeze(), freeze(), freeze())
    await outbox.freeze_closed(TEN + 10 * HOUR, GRACE_S)
    events = await oldest_first(outbox)
    for user in users:
        payer = await pool.fetchval("select stripe_customer_id from users where id = $1", user)
        mine = [held for held in events if held.customer == payer]
        assert sum(held.value for held in mine) * 1000 + await carry_of(pool, user) == owed[user]
        for start in {held.window_start for held in mine}:
            seqs = [held.seq for held in mine if held.window_start == start]
            assert sorted(seqs) == list(range(len(seqs)))


async def test_a_freezer_passes_by_a_payer_whom_another_one_freezes(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    first, second = await customer(ledger, 1), await customer(ledger, 2)
    for user in (first, second):
        await book(ledger, user, TEN, 5_000)
    payer = await pool.fetchval("select payer_of($1, now())", first)
    await pool.execute(sql.CARRY_ROW, payer, METER)
    async with pool.acquire() as other, other.transaction():
        assert await other.fetchrow(sql.CARRY_LOCK, payer, METER) is not None
        assert await asyncio.wait_for(outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S), HANGS_S) == (1, 1)
    assert [held.customer for held in await oldest_first(outbox)] == ["cus_2"]
    assert await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S) == (1, 1)


async def test_usage_written_while_freezing_is_kept_for_the_next_pass(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    user = await customer(ledger)
    await book(ledger, user, TEN, 5_000)
    payer = await pool.fetchval("select payer_of($1, now())", user)
    async with pool.acquire() as freezer, freezer.transaction():
        (window,) = await freezer.fetch(sql.WINDOWS, payer, METER, TEN + 2 * HOUR)
        await asyncio.wait_for(book(ledger, user, TEN, 3_000), HANGS_S)  # the writer never waits for a freezer
        await freezer.execute(sql.FREEZE_WINDOW, window["id"], 5_000, 0, 1)
    assert await pool.fetchval("select billed_nano - frozen_nano from billing_windows") == 3_000


async def test_users_of_one_customer_share_an_event_per_window(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    users = [await customer(ledger, number) for number in range(3)]
    await pool.execute("update users set stripe_customer_id = 'cus_firm'")
    at = await pool.fetchval("select max(valid_from) from user_customers where valid_from > '-infinity'")
    hour = at.replace(minute=0, second=0, microsecond=0) + HOUR
    for user in users:
        await book(ledger, user, hour, 1_500)
    await outbox.freeze_closed(hour + 2 * HOUR, GRACE_S)
    (held,) = await oldest_first(outbox)
    assert (held.customer, held.value) == ("cus_firm", 4)
    assert await carry_of(pool, users[0]) == 500


async def test_a_change_of_customer_never_moves_an_amount(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """Usage of 16:00 and a late row of an earlier day were made under the first customer: it pays for them."""
    dan = await customer(ledger, 1)
    await book(ledger, dan, TEN, 3_075_000)
    await pool.execute("update users set stripe_customer_id = 'cus_2' where id = $1", dan)
    changed_at = await pool.fetchval("select max(valid_from) from user_customers")
    await book(ledger, dan, TEN - 12 * 24 * HOUR, 600_000_000)
    now = changed_at + 3 * HOUR
    await book(ledger, dan, changed_at + HOUR, 7_000)
    await outbox.freeze_closed(now, GRACE_S)
    events = await oldest_first(outbox)
    assert sorted((held.customer, held.value) for held in events) == [
        ("cus_1", 3_075),
        ("cus_1", 600_000),
        ("cus_2", 7),
    ]


async def test_an_identifier_that_was_sent_is_not_used_again(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """Two users, one customer, one after the other: the second one's amount must not pass for the first one's."""
    first = await customer(ledger)
    await book(ledger, first, TEN, 5_000)
    await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S)
    await pool.execute("update billing_windows set next_seq = 0")  # as where the window was another payer's row
    await book(ledger, first, TEN, 6_000)
    await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S)
    assert [(held.identifier[-1], held.value) for held in await oldest_first(outbox)] == [("0", 5), ("1", 6)]


async def test_status_counts_events_and_money(ledger: Ledger, outbox: Outbox) -> None:
    await one_pending(ledger, outbox)
    status = await outbox.status()
    assert (status.counts, status.values) == ({"pending": 1}, {"pending": 5})
    assert status.oldest_pending_at is not None


async def test_a_database_that_is_away_is_named(database_url: str) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=1)
    await pool.close()
    with pytest.raises(DependencyDown, match="postgres"):
        await Outbox(pool).freeze_closed(TEN, GRACE_S)
