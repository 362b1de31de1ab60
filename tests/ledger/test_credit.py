"""Prepaid credit pays an amount or the payer's window holds it: never both, never neither, split to the nano-dollar."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool, open_pool
from gateway.usage.event import UsageEvent
from tests.billing.outboxes import GRACE_S, HOUR, TEN
from tests.conftest import METER, WINDOW_S
from tests.support.usage import entries, usage

Window = tuple[datetime, int, int]


async def give(pool: Pool, user: str, nano: int, at: datetime = TEN) -> None:
    await pool.execute(
        "insert into credit_entries (user_id, amount_usd, created_at) values ($1, $2, $3)",
        user, Decimal(nano).scaleb(-9), at,
    )  # fmt: skip


async def windows(pool: Pool, user: str) -> list[Window]:
    """Start, billed and paid by credit, of the user's own windows and those of their customer of today."""
    rows = await pool.fetch(
        "select window_start, billed_nano, credit_nano from billing_windows"
        " where user_id = $1 or customer_id = payer_of($1, now()) order by 1",
        user,
    )
    return [tuple(row) for row in rows]


async def balance(pool: Pool, user: str) -> tuple[int, int]:
    """What was used, and what is left."""
    row = await pool.fetchrow("select used_nano, left_nano from credit_balances where user_id = $1", user)
    assert row is not None
    assert row["used_nano"] == await pool.fetchval(
        "select coalesce(sum(nano), 0) from credit_uses where user_id = $1", user
    )
    return tuple(row)


async def test_what_credit_pays_is_not_at_stripe_as_well(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("eve@example.com", stripe_customer_id="cus_eve")
    await give(pool, user, 5_000_000_000)
    calls = [15_480, 500_000, 500_000, 575_000, 700_000, 800_000]  # in all 3,090,480 nano-USD: 3,091 micro-USD
    await ledger.insert_batch(entries(*(usage(user, TEN + index * HOUR / 2, nano) for index, nano in enumerate(calls))))
    assert await Spending(pool).credit_left(user) == Decimal("4.996909520")
    assert await Outbox(pool).freeze_closed(TEN + 99 * HOUR, GRACE_S) == (0, 0)
    assert [billed - credit for _, billed, credit in await windows(pool, user)] == [0, 0, 0]
    assert sum(credit for _, _, credit in await windows(pool, user)) == sum(calls)


@pytest.mark.parametrize("customer", ["cus_1", None])
async def test_an_amount_is_split_where_credit_ends(ledger: Ledger, pool: Pool, customer: str | None) -> None:
    user = await Accounts(pool).create_user("ann@example.com", stripe_customer_id=customer)
    await give(pool, user, 1_000)
    await ledger.insert_batch(entries(usage(user, TEN, 700), usage(user, TEN + HOUR, 700), usage(user, TEN + HOUR, 5)))
    assert await windows(pool, user) == [(TEN, 700, 700), (TEN + HOUR, 705, 300)]
    assert await balance(pool, user) == (1_000, 0)
    # A later entry pays for what comes then, and not for what is owed by now.
    await give(pool, user, 50, TEN + HOUR)
    assert await balance(pool, user) == (1_000, 50)
    await ledger.insert_batch(entries(usage(user, TEN, 7)))
    assert await windows(pool, user) == [(TEN, 707, 707), (TEN + HOUR, 705, 300)]


async def test_a_correction_gives_back_to_credit_first(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    await give(pool, user, 1_000)
    call = usage(user, TEN, 1_600)
    await ledger.insert_batch(entries(call))
    await ledger.insert_batch(entries(usage(user, TEN + HOUR, -300, evidence="adjustment", adjusts=call.id)))
    assert await windows(pool, user) == [(TEN, 1_600, 1_000), (TEN + HOUR, -300, -300)]
    assert await balance(pool, user) == (700, 300)
    # No more than usage has used: the rest lowers what is owed.
    await ledger.insert_batch(entries(usage(user, TEN + 2 * HOUR, -900, evidence="adjustment", adjusts=call.id)))
    assert (await windows(pool, user))[-1] == (TEN + 2 * HOUR, -900, -700)
    assert await balance(pool, user) == (0, 1_000)


async def test_usage_from_before_the_first_entry_is_not_paid_by_it(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    await give(pool, user, 1_000, TEN + HOUR)
    await ledger.insert_batch(
        entries(usage(user, TEN + HOUR, 10), usage(user, TEN + HOUR - timedelta(microseconds=1), 20))
    )
    assert await windows(pool, user) == [(TEN, 20, 0), (TEN + HOUR, 10, 10)]


async def test_who_has_credit_becomes_prepaid_and_grants_take_no_entry(ledger: Ledger, pool: Pool) -> None:
    accounts = Accounts(pool)
    first, later = [await accounts.create_user(f"{name}@example.com") for name in ("first", "later")]
    await accounts.set_stripe_customer(later, "cus_later")
    await give(pool, later, 5)
    await give(pool, first, 5)
    await accounts.set_stripe_customer(first, "cus_first")
    assert await pool.fetchval("select array_agg(mode) from customers") == ["prepaid", "prepaid"]
    await pool.execute("update customers set mode = 'grants'")
    with pytest.raises(asyncpg.CheckViolationError, match="credit grants at Stripe"):
        await give(pool, first, 5)
    # A customer who pays by invoice uses no credit.
    await pool.execute("update customers set mode = 'postpaid'")
    at = datetime.now(UTC) + HOUR
    await ledger.insert_batch(entries(usage(first, at, 3)))
    assert [row[1:] for row in await windows(pool, first)] == [(3, 0)]


async def test_the_limiter_counts_what_credit_has_paid(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    await give(pool, user, 1_000)
    late, early = usage(user, TEN, 1_600), usage(user, TEN - HOUR, 50)
    await ledger.insert_batch(entries(late, early))
    credit = Budget(
        id=f"credit:{user}", user_id=user, limit_nano=1_000, period="total", hard=True, since=TEN, counts="billed_usd"
    )
    asked = [late.id, early.id, str(uuid4())]
    nano, contained, corrected = await Spending(pool).read_spent(credit.window(TEN), asked, [late.id])
    assert (nano, sorted(contained), corrected) == (1_000, sorted([late.id, early.id]), [])
    nobody = Budget(
        id="credit:x", user_id=str(uuid4()), limit_nano=0, period="total", hard=True, since=TEN, counts="billed_usd"
    )
    assert (await Spending(pool).read_spent(nobody.window(TEN)))[0] == 0


async def test_writers_at_once_use_credit_once(ledger: Ledger, pool: Pool) -> None:
    users = [await Accounts(pool).create_user(f"user{number}@example.com") for number in range(3)]
    for user in users:
        await give(pool, user, 10_000)
    batches = [entries(*(usage(user, TEN + n * HOUR, 97) for user in users for n in range(5))) for _ in range(40)]
    await asyncio.gather(*(ledger.insert_batch(batch) for batch in batches))
    for user in users:
        assert await balance(pool, user) == (10_000, 0)
        assert sum(row[2] for row in await windows(pool, user)) == 10_000
        assert sum(row[1] for row in await windows(pool, user)) == 97 * 5 * 40


class Row(NamedTuple):
    """A row of a batch: whose, how long after TEN, and what it is billed; below 0 it corrects the user's first one."""

    user: int
    minutes: int
    nano: int


ROWS = st.builds(Row, st.integers(0, 2), st.integers(-90, 26 * 60), st.integers(-2_000, 4_000).filter(bool))
STEPS = st.lists(
    st.one_of(st.tuples(st.integers(0, 2), st.integers(-900, 5_000).filter(bool)), st.lists(ROWS, max_size=8)),
    max_size=8,
)
CUSTOMERS = (None, "prepaid", "postpaid")
"""What pays for each of the three users."""


class Model:
    """The same in plain arithmetic, row by row."""

    def __init__(self, users: Sequence[str]) -> None:
        self.users = users
        self.granted: dict[int, int] = {}
        self.used: Counter[int] = Counter()
        self.billed: Counter[tuple[int, datetime]] = Counter()
        self.credit: Counter[tuple[int, datetime]] = Counter()
        self.days: Counter[tuple[int, date]] = Counter()

    def take(self, batch: Sequence[tuple[Row, UsageEvent]]) -> None:
        def order(item: tuple[Row, UsageEvent]) -> tuple[datetime, UUID]:
            return self._hour(item[1]), UUID(item[1].id)

        for row, event in sorted(batch, key=order):
            hour = self._hour(event)
            self.billed[row.user, hour] += row.nano
            if row.user not in self.granted or CUSTOMERS[row.user] == "postpaid" or event.completed_at < TEN:
                continue
            used = self.used[row.user]
            left = max(0, self.granted[row.user] - used)
            part = min(row.nano, left) if row.nano > 0 else max(row.nano, -used)
            self.used[row.user] += part
            self.credit[row.user, hour] += part
            self.days[row.user, event.completed_at.date()] += part

    def _hour(self, event: UsageEvent) -> datetime:
        return event.completed_at.replace(minute=0, second=0, microsecond=0)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS)
def test_any_sequence_is_split_as_arithmetic_says(database_url: str, steps: list[tuple[int, int] | list[Row]]) -> None:
    asyncio.run(_compare(database_url, steps))


async def _compare(database_url: str, steps: list[tuple[int, int] | list[Row]]) -> None:
    pool = await open_pool(database_url, connections_max=1)
    try:
        name = uuid4().hex
        users = [
            await Accounts(pool).create_user(f"{name}{n}@example.com", stripe_customer_id=mode and f"cus_{name}{n}")
            for n, mode in enumerate(CUSTOMERS)
        ]
        ledger, model = Ledger(pool, meter=METER, window_s=WINDOW_S), Model(users)
        firsts = [usage(user, TEN, 0) for user in users]
        await ledger.insert_batch(entries(*firsts))
        for step in steps:
            if isinstance(step, tuple):
                whose, nano = step
                await give(pool, users[whose], nano)
                await pool.execute(
                    "update customers set mode = 'postpaid' where stripe_customer_id = $1", f"cus_{name}2"
                )
                model.granted[whose] = model.granted.get(whose, 0) + nano
            else:
                batch = [(row, _event(row, users, firsts)) for row in step]
                await ledger.insert_batch([LedgerEntry.of(event) for _, event in batch])
                model.take(batch)
        for n, user in enumerate(users):
            seen = {start: (billed, credit) for start, billed, credit in await windows(pool, user)}
            hours = {hour for who, hour in model.billed if who == n}
            assert seen == {hour: (model.billed[n, hour], model.credit[n, hour]) for hour in hours}
            if n in model.granted:
                assert await balance(pool, user) == (model.used[n], model.granted[n] - model.used[n])
            days = await pool.fetch("select day, nano from credit_uses where user_id = $1 and nano <> 0", user)
            assert {row["day"]: row["nano"] for row in days} == {
                day: nano for (who, day), nano in model.days.items() if who == n and nano
            }
    finally:
        await pool.close()


def _event(row: Row, users: Sequence[str], firsts: Sequence[UsageEvent]) -> UsageEvent:
    at = TEN + timedelta(minutes=row.minutes)
    if row.nano > 0:
        return usage(users[row.user], at, row.nano)
    return usage(users[row.user], at, row.nano, evidence="adjustment", adjusts=firsts[row.user].id)
