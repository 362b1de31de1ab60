"""A window in which a period of Stripe's ends: every row of it goes to the period in which it was booked."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.accounts.payers import PayerStore
from gateway.accounts.store import Accounts
from gateway.billing import cancelling_sql
from gateway.billing.outbox import Outbox
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import GRACE_S, HOUR, customer, oldest_first
from tests.billing.test_cancelling import BALANCE
from tests.billing.test_late import subscribe
from tests.support.usage import entries, usage

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
EDGE = NOON + timedelta(minutes=30)
EARLY, LATE = EDGE - timedelta(minutes=1), EDGE + timedelta(minutes=1)
OLD, NEW = EDGE - timedelta(seconds=1), NOON + HOUR - timedelta(seconds=1)
"""Under which time an amount is in the period that ends, and in the one that begins."""
SOON = NOON + timedelta(hours=1, minutes=5)
TOO_LATE = EDGE + timedelta(minutes=45)
"""From when on the period that has ended takes nothing more."""


@pytest.fixture
async def outbox(pool: Pool) -> Outbox:
    await subscribe(pool, "cus_1", datetime(2026, 10, 10, 12, 30, tzinfo=UTC), EDGE)
    return Outbox(pool)


async def add(ledger: Ledger, user: str, *rows: tuple[datetime, int]) -> None:
    await ledger.insert_batch(entries(*(usage(user, at, nano) for at, nano in rows)))


async def filed(outbox: Outbox, pool: Pool, *, skip: int = 0) -> list[tuple[datetime, int]]:
    assert await pool.fetchval(BALANCE) == 0
    return [(held.timestamp, held.value) for held in await oldest_first(outbox)][skip:]


async def test_each_part_goes_to_its_period(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    user = await customer(ledger)
    await add(ledger, user, (EARLY, 3_000), (LATE, 5_000))
    await outbox.freeze_closed(SOON, GRACE_S)
    assert await filed(outbox, pool) == [(OLD, 3), (NEW, 5)]
    # And what comes to the same window later goes to where it belongs.
    await add(ledger, user, (EARLY, 700_000), (LATE, 11_000))
    await outbox.freeze_closed(SOON + timedelta(minutes=5), GRACE_S)
    assert await filed(outbox, pool, skip=2) == [(OLD, 700), (NEW, 11)]


async def test_a_row_that_was_booked_later_counts_where_it_was_booked(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    user = await customer(ledger)
    await add(ledger, user, (EARLY, 3_000))
    for booked_at, nano in ((EARLY, 20_000), (LATE, 400_000)):
        await pool.execute(_BOOKED_LATER, user, NOON - 20 * 24 * HOUR, booked_at, nano)
    await outbox.freeze_closed(SOON, GRACE_S)
    assert await filed(outbox, pool) == [(OLD, 23), (NEW, 400)]


# As the ledger books a row of a month that was sealed by then, but at an instant that the test chooses.
_BOOKED_LATER = """
insert into openai_usage (id, user_id, endpoint, model, evidence, cost_usd, billed_usd, started_at, completed_at,
  booked_at, customer_id, books_version)
values (gen_random_uuid(), $1, 'chat', 'm', 'reported', $4::bigint * 0.000000001, $4::bigint * 0.000000001, $2, $2, $3,
  payer_of($1, $2), 1)
"""


async def test_what_a_user_accrued_counts_for_the_later_period(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """It has lost its times when it becomes the customer's; the later period is the one that surely takes it."""
    user = await Accounts(ledger.pool).create_user("user2@example.com")
    await add(ledger, user, (EARLY, 50_000), (LATE, 6_000))
    await add(ledger, await customer(ledger), (EARLY, 3_000), (LATE, 700_000))
    payers = PayerStore(pool)
    payer = await pool.fetchval("select id::text from customers")
    await payers.take_over(payer, await payers.accrued(user))
    await outbox.freeze_closed(SOON, GRACE_S)
    assert await filed(outbox, pool) == [(OLD, 3), (NEW, 756)]


async def test_a_part_without_an_event_is_not_counted_again(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """Less than a micro-USD makes no event, and a correction that the period cannot take back makes credit due."""
    user = await customer(ledger)
    wrong = usage(user, EARLY, 500)
    await ledger.insert_batch(entries(wrong))
    await outbox.freeze_closed(SOON, GRACE_S)
    await ledger.insert_batch(entries(usage(user, EARLY, -20_000, evidence="adjustment", adjusts=wrong.id)))
    await outbox.freeze_closed(SOON, GRACE_S)
    assert await filed(outbox, pool) == []
    assert tuple(await pool.fetchrow("select nano, credit_due_nano from billing_carry") or ()) == (500, 20_000)
    await add(ledger, user, (LATE, 35_000))
    await outbox.freeze_closed(SOON, GRACE_S)
    assert await filed(outbox, pool) == [(NEW, 15)]


async def test_a_part_that_is_too_late_is_not_counted_again(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    user = await customer(ledger)
    later = TOO_LATE + HOUR
    await add(ledger, user, (EARLY, 3_000), (LATE, 5_000))
    await outbox.freeze_closed(later, GRACE_S)
    assert await filed(outbox, pool) == [(later, 3), (NEW, 5)]
    await add(ledger, user, (EARLY, 700_000))
    await outbox.freeze_closed(later, GRACE_S)
    assert await filed(outbox, pool, skip=2) == [(later, 700)]


async def test_a_part_that_is_cancelled_goes_to_its_period_again(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    user = await customer(ledger)
    await add(ledger, user, (EARLY, 3_000), (LATE, 5_000))
    await outbox.freeze_closed(SOON, GRACE_S)
    (event, _) = await pool.fetch("select id, value * 1000 as nano from stripe_meter_events order by id")
    await pool.execute(
        "update stripe_meter_events set state = 'cancelled', delivered_at = now() where id = $1", event["id"]
    )
    await pool.execute(cancelling_sql.UNFREEZE, event["id"], event["nano"])
    await outbox.freeze_closed(SOON, GRACE_S)
    assert await filed(outbox, pool) == [(OLD, 3), (NEW, 5), (OLD, 3)]
