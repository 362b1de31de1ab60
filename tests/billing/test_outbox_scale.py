"""The outbox costs by what is due, not by what waits or was ever sent: in buffers, which no load changes."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.billing import freezing_sql, outbox_sql, refiling_sql
from gateway.billing.outbox import Outbox
from gateway.stores.postgres import Pool
from tests.billing.outboxes import deliver

NOW = datetime(2026, 11, 24, 16, tzinfo=UTC)
CUSTOMERS = 10_000
HOURS = 30
BUFFERS_MAX = 40
# An outage of 30 hours: every customer has an event of each hour.
PENDING = """
insert into stripe_meter_events (customer_id, user_id, customer, meter, window_start, window_seconds, seq, value, nano,
  carry_nano_after, event_timestamp, identifier, state, next_attempt_at, delivered_at, account)
select null, $5, 'cus_' || c, 'm', $1::timestamptz + h * interval '1 hour', 3600, c, 5, 5000, 0,
  $1::timestamptz + h * interval '1 hour' + interval '3599 seconds', $4 || ':' || c || ':' || h, $4,
  case when $4 = 'pending' then $1::timestamptz end, case when $4 = 'sent' then $1::timestamptz end, 'acct_1'
from generate_series(0, $3::integer - 1) h, generate_series(1, $2::integer) c
"""


async def explain(connection: Any, statement: str, *arguments: object) -> dict[str, Any]:
    """The plan of a statement that is really run, and undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        found = await connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *arguments)
    finally:
        await transaction.rollback()
    plan: dict[str, Any] = json.loads(found)[0]["Plan"]
    return plan


def buffers(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def scans(plan: dict[str, Any]) -> set[str]:
    """The tables that are read from end to end."""
    own = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return own.union(*(scans(each) for each in plan.get("Plans", ())))


async def fill(pool: Pool, customers: int, hours: int, state: str) -> None:
    payer = await pool.fetchval("select id from users limit 1")
    if payer is None:
        payer = await pool.fetchval("insert into users (email) values ('u@example.com') returning id")
    start = NOW - timedelta(hours=hours + (100 if state == "sent" else 0))
    await pool.execute(PENDING, start, customers, hours, state, payer, timeout=600)


@pytest.mark.long
async def test_a_claim_costs_the_same_however_much_waits(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("set statement_timeout = 0")
    await fill(pool, CUSTOMERS, HOURS, "pending")
    await pool.execute("vacuum analyze stripe_meter_events", timeout=600)
    outbox = Outbox(pool)
    until, doubt = NOW + timedelta(seconds=120), NOW - timedelta(hours=20)
    async with pool.acquire() as connection:
        plan = await explain(connection, outbox_sql.CLAIM, NOW, until, 32, doubt, "acct_1", "", "", None, None)
        assert buffers(plan) <= 32 * BUFFERS_MAX
        assert "stripe_meter_events" not in scans(plan)
        expire = await explain(connection, outbox_sql.EXPIRE, doubt, NOW, "acct_1")
        overdue = await explain(connection, refiling_sql.OVERDUE, NOW, NOW - timedelta(days=24), "acct_1", 1000)
    # These look at each customer once a pass, never at what waits behind its oldest event.
    for each in (expire, overdue):
        assert buffers(each) <= CUSTOMERS * 8
        assert "stripe_meter_events" not in scans(each)
    claimed = 0
    for _ in range(20):
        claims = await outbox.claim(NOW, lease_s=120, events_max=32, account="acct_1")
        claimed += len(claims)
        for claim in claims[:8]:
            await deliver(outbox, claim, NOW)
    assert claimed == 20 * 32
    async with pool.acquire() as connection:  # the next customers, behind those that are leased or delivered
        plan = await explain(connection, outbox_sql.CLAIM, NOW, until, 32, doubt, "acct_1", *outbox.after, None, None)
    assert buffers(plan) <= 32 * BUFFERS_MAX


async def test_what_was_delivered_is_not_read_again(pool: Pool) -> None:
    await fill(pool, 200, 100, "sent")
    await fill(pool, 20, 3, "pending")
    await pool.execute("analyze stripe_meter_events")
    doubt = NOW - timedelta(hours=20)
    async with pool.acquire() as connection:
        for statement, arguments, most in (
            (outbox_sql.COUNTS, (), 20),
            (outbox_sql.OLDEST, (), 20),
            (outbox_sql.OF_OTHERS, ("acct_1",), 20),
            (outbox_sql.METERS_WAITING, ("acct_1",), 20),
            (outbox_sql.UNPAID_USERS, (), 20),
            (outbox_sql.EXPIRE, (doubt, NOW, "acct_1"), 400),
            (refiling_sql.OVERDUE, (NOW, doubt, "acct_1", 1000), 400),
            (outbox_sql.CLAIM, (NOW, NOW, 8, doubt, "acct_1", "", "", None, None), 8 * BUFFERS_MAX),
            (freezing_sql.CLOSED, (NOW, 1000), 20),
        ):
            plan = await explain(connection, statement, *arguments)
            assert buffers(plan) <= most, statement
            assert "stripe_meter_events" not in scans(plan), statement
    assert (await Outbox(pool).status()).counts == {"sent": 20_000, "pending": 60}
