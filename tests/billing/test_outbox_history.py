"""The outbox keeps its history: amounts never change, each attempt and each decision stays, and totals are its sums."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from gateway.billing.outbox import Outbox
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import (
    GRACE_S,
    HOUR,
    TEN,
    book,
    claim_one,
    customer,
    deliver,
    one_pending,
    reject,
    retry,
)

NOW = TEN + 2 * HOUR
# What the version before does to send an event again (its REISSUE), word for word.
OLD_REISSUE = """
update public.stripe_meter_events set state = 'pending', seq = $2, identifier = $3, customer = $4,
  first_attempt_at = null, next_attempt_at = $5, last_error = 'sent before as ' || identifier
where id = $1
"""
OLD_CLAIM = """
with head as (
  select distinct on (customer, meter) id from public.stripe_meter_events
  where state = 'pending' and (account is null or account = $5) order by customer, meter, id
), due as (
  select e.id, e.first_attempt_at from public.stripe_meter_events e join head using (id)
  where e.state = 'pending' and e.next_attempt_at <= $1
    and (e.first_attempt_at is null or e.first_attempt_at > $4)
  order by e.next_attempt_at, e.id limit $3 for update of e skip locked
)
update public.stripe_meter_events e
set attempts = attempts + 1, first_attempt_at = coalesce(e.first_attempt_at, $1), next_attempt_at = $2, account = $5
from due where e.id = due.id
returning e.id, e.attempts, due.first_attempt_at as doubt_since,
  e.meter, e.customer, e.value, e.identifier, e.event_timestamp
"""
COUNTED = """
select state, meter, account, count(*)::bigint, sum(value)::bigint from stripe_meter_events group by 1, 2, 3
"""
TOTALS = """
select state, meter, account, sum(events)::bigint, sum(value)::bigint from outbox_totals
group by 1, 2, 3 having sum(events) <> 0 or sum(value) <> 0
"""


@pytest.fixture
def outbox(pool: Pool) -> Outbox:
    return Outbox(pool)


async def attempts(pool: Pool) -> list[tuple[object, ...]]:
    rows = await pool.fetch("select n, outcome, http_status, stripe_request_id, error from stripe_attempts order by id")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    "change",
    [
        "value = value + 1",
        "nano = nano + 1",
        "customer = 'cus_2'",
        "meter = 'other'",
        "window_start = window_start + interval '1 hour'",
        "event_timestamp = event_timestamp + interval '1 hour'",
        "identifier = 'x'",
        "seq = seq + 1",
        "identifier = 'x', state = 'pending', value = value + 1",
    ],
)
@pytest.mark.parametrize("state", ["pending", "rejected", "sent"])
async def test_what_is_sent_never_changes(ledger: Ledger, outbox: Outbox, pool: Pool, change: str, state: str) -> None:
    await one_pending(ledger, outbox)
    delivered = "now()" if state == "sent" else "null"
    await pool.execute(f"update stripe_meter_events set state = $1, delivered_at = {delivered}", state)
    before = await pool.fetchrow("select * from stripe_meter_events")
    with pytest.raises(asyncpg.RestrictViolationError, match="never changes"):
        await pool.execute(f"update stripe_meter_events set {change}")
    assert await pool.fetchrow("select * from stripe_meter_events") == before


@pytest.mark.parametrize("state", ["written_off", "superseded"])
async def test_what_is_decided_stays(ledger: Ledger, outbox: Outbox, pool: Pool, state: str) -> None:
    await one_pending(ledger, outbox)
    await pool.execute("update stripe_meter_events set state = $1", state)
    with pytest.raises(asyncpg.RestrictViolationError):
        await pool.execute("update stripe_meter_events set state = 'pending'")


async def test_nothing_of_it_is_deleted(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    await one_pending(ledger, outbox)
    await reject(outbox, await claim_one(outbox, NOW), "no")
    for table in ("stripe_meter_events", "stripe_attempts", "stripe_decisions"):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await pool.execute(f"delete from {table}")
    for table in ("stripe_attempts", "stripe_decisions"):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await pool.execute(f"update {table} set id = default")


async def test_every_attempt_stays(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    await one_pending(ledger, outbox)
    await retry(outbox, await claim_one(outbox, NOW), "500: oops", NOW, after_s=1, in_doubt=True)
    at = NOW + timedelta(seconds=1)
    await claim_one(outbox, at)  # and its worker dies
    at += timedelta(seconds=60)
    await deliver(outbox, await claim_one(outbox, at), at)
    assert await attempts(pool) == [
        (1, "in_doubt", None, None, "500: oops"),
        (2, "lost", None, None, None),
        (3, "delivered", 200, "req_1", None),
    ]
    assert await pool.fetchval("select leased_until from stripe_meter_events") is None


async def test_a_lease_is_visible_while_it_lasts(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    await one_pending(ledger, outbox)
    await claim_one(outbox, NOW)
    assert await pool.fetchval("select leased_until from stripe_meter_events") == NOW + timedelta(seconds=60)


async def test_the_version_before_sends_an_event_again_without_losing_the_first(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    held = await one_pending(ledger, outbox)
    await reject(outbox, await claim_one(outbox, NOW), "no such meter")
    fresh = held.identifier[:-1] + "1"
    assert await pool.execute(OLD_REISSUE, held.id, 1, fresh, held.customer, NOW) == "UPDATE 1"
    rows = await pool.fetch("select identifier, state, value, replaces from stripe_meter_events order by id")
    assert [tuple(row) for row in rows] == [
        (held.identifier, "superseded", 5, None),
        (fresh, "pending", 5, held.id),
    ]
    assert (await claim_one(outbox, NOW)).event.identifier == fresh


async def test_the_version_before_claims_beside_this_one(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    for number in range(6):
        await book(ledger, await customer(ledger, number), TEN, 5_000)
    await outbox.freeze_closed(NOW, GRACE_S)
    until = NOW + timedelta(seconds=60)
    old = await pool.fetch(OLD_CLAIM, NOW, until, 3, NOW - 20 * HOUR, None)
    new = await outbox.claim(NOW, lease_s=60, events_max=10)
    assert len(old) == len(new) == 3
    assert not {row["id"] for row in old} & {claim.id for claim in new}
    assert await pool.fetch(OLD_CLAIM, NOW, until, 3, NOW - 20 * HOUR, None) == []


async def test_totals_are_the_sums_of_the_outbox_whoever_writes(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    for number in range(8):
        user = await customer(ledger, number)
        for hour in range(3):
            await book(ledger, user, TEN + hour * HOUR, 5_000 + number * 1_000)
    now = TEN + 5 * HOUR

    async def work(turns: int) -> None:
        own = Outbox(pool)
        for turn in range(turns):
            await own.freeze_closed(now, GRACE_S)
            for number, claim in enumerate(await own.claim(now, lease_s=60, events_max=3, account="acct_1")):
                if (turn + number) % 3 == 0:
                    await reject(own, claim, "no", now)
                elif (turn + number) % 3 == 1:
                    await deliver(own, claim, now)
                else:
                    await retry(own, claim, "429", now, after_s=0, in_doubt=False)

    await asyncio.gather(*(work(2) for _ in range(3)))
    assert sorted(await pool.fetch(TOTALS), key=str) == sorted(await pool.fetch(COUNTED), key=str)
    assert len(await pool.fetch(TOTALS)) >= 3
    assert sum((await outbox.status()).counts.values()) == 24


async def test_customers_take_turns(ledger: Ledger, outbox: Outbox) -> None:
    """However much waits for the first customers, the last ones are not passed over."""
    for number in range(6):
        user = await customer(ledger, number)
        for hour in range(3):
            await book(ledger, user, TEN + hour * HOUR, 5_000)
    now = TEN + 5 * HOUR
    await outbox.freeze_closed(now, GRACE_S)
    seen = []
    for _ in range(9):
        for claim in await outbox.claim(now, lease_s=60, events_max=2):
            seen.append(claim.event.customer)
            await deliver(outbox, claim, now)
    assert seen == [f"cus_{number}" for number in range(6)] * 3
    assert await outbox.claim(now, lease_s=60, events_max=2) == []
