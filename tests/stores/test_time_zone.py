"""Sessions in another time zone than UTC, as behind a transaction pooler, where nobody may set it: no answer changes.

Asia/Kolkata, because its hours begin at half past those of UTC; America/New_York, because its days are not all as long.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from urllib.parse import urlsplit

import msgspec
import pytest

from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts
from gateway.audit.reads.lifecycle import read_lifecycle
from gateway.audit.reads.snapshot import AuditRange, snapshot
from gateway.audit.reads.sums import read_rollups
from gateway.billing.outbox import Outbox
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget, Window
from gateway.limits.spending import Spending
from gateway.reports.store import Reports
from gateway.stores.postgres import Pool, open_pool
from tests.conftest import METER, WINDOW_S, admin
from tests.support.events import AT, call, new_id, sums_are_right

DAY = AT.replace(hour=0, minute=0)
ELSEWHERE = ("Asia/Kolkata", "America/New_York")


@pytest.fixture(params=ELSEWHERE)
async def elsewhere(request: pytest.FixtureRequest, database_url: str, filled: str) -> AsyncIterator[Pool]:
    """The same database through sessions of another zone, the database own, and another way to write dates."""
    name = urlsplit(database_url).path.lstrip("/")
    await admin(
        database_url,
        f"alter database {name} set timezone = '{request.param}'",
        f"alter database {name} set datestyle = 'SQL, DMY'",
    )
    opened = await open_pool(database_url + ("&" if "?" in database_url else "?") + "pgbouncer=true")
    assert await opened.fetchval("show timezone") == request.param
    assert filled
    yield opened
    await opened.close()


@pytest.fixture
async def filled(ledger: Ledger, pool: Pool) -> str:
    """A user with a call every ten minutes for three days, on and beside the hours; their id."""
    user, random = await Accounts(ledger.pool).create_user("payer@example.com", stripe_customer_id="cus_1"), Random(5)
    events = [call(user, new_id(random), seconds=600 * number - 900) for number in range(3 * 144)]
    await ledger.insert_batch([LedgerEntry.of(event) for event in events])
    await Spending(pool).set_budget(
        Budget(id="", user_id=user, limit_nano=0, period="total", hard=True, since=AT), Decimal(5)
    )
    await Spending(pool).add_credit(user, Decimal(3), None, "r")
    return user


async def test_what_was_spent_since_any_instant(pool: Pool, elsewhere: Pool, filled: str) -> None:
    for minutes in (0, 1, 14, 15, 29, 30, 31, 45, 59, 60, 75, 24 * 60, 26 * 60 + 30):
        for since in (DAY + timedelta(hours=10, minutes=minutes), AT + timedelta(minutes=minutes, microseconds=1)):
            budget = Budget(id="b", user_id=filled, limit_nano=1, period="total", hard=True, since=since)
            window = Window(budget, since, None)
            rows = await pool.fetchval("select sum(cost_usd) from openai_usage where created_at >= $1", since)
            assert await Spending(elsewhere).read_spent(window) == (int(rows * 10**9), [], [])


async def test_reports_by_month_day_and_hour(pool: Pool, elsewhere: Pool, filled: str) -> None:
    ranges: list[tuple[datetime | None, datetime | None]] = [
        (None, None),
        (AT + timedelta(minutes=7), AT + timedelta(hours=20)),
        (AT, None),
    ]
    for since, until in ranges:
        for by in (("month",), ("day",), ("hour",), ("month", "day", "hour", "user")):
            here = await Reports(pool).usage(by, since, until, rows_max=1000)
            there = await Reports(elsewhere).usage(by, since, until, rows_max=1000)
            assert here
            assert here == there


async def test_the_writer_sums_into_hours_of_utc(elsewhere: Pool, filled: str) -> None:
    ledger, random = Ledger(elsewhere, meter=METER, window_s=WINDOW_S), Random(6)
    more = [call(filled, new_id(random), seconds=420 * number) for number in range(50)]
    await ledger.insert_batch([LedgerEntry.of(event) for event in more])
    assert await sums_are_right(elsewhere)
    assert await Outbox(elsewhere).freeze_closed(AT + timedelta(days=9), 300) is not None
    assert await sums_are_right(elsewhere)
    begins = await elsewhere.fetch("select distinct extract(epoch from window_start)::int % 3600 from billing_windows")
    assert [row[0] for row in begins] == [0]


async def test_limits_of_a_key_begin_at_the_same_instant(pool: Pool, elsewhere: Pool, filled: str) -> None:
    found = []
    for each in (pool, elsewhere):
        identity = await KeyOwners(each).identity(filled, "none")
        assert identity is not None
        bounds = msgspec.json.decode(identity.budgets, type=list[Budget])
        assert {bound.period for bound in bounds} == {"total"}
        assert all(bound.since.tzinfo is not None and "Z" in identity.budgets for bound in bounds)
        found.append([(bound.id, bound.since.astimezone(UTC)) for bound in bounds])
    assert found[0] == found[1]
    assert {at for _, at in found[0]} == set(
        await pool.fetchval("select array[(select created_at from budgets), (select created_at from credit_entries)]")
    )


async def test_the_audit_names_hours_of_utc(pool: Pool, elsewhere: Pool, filled: str) -> None:
    await elsewhere.execute("update usage_hourly set calls = calls + 1 where hour = $1", AT.replace(minute=0))
    await elsewhere.execute("update billing_windows set updated_at = now() - interval '48 hours'")
    seen = []
    for each in (pool, elsewhere):
        async with snapshot(each) as view:
            wrong = (await read_rollups(view, AuditRange(None, None))).hours
            late = await read_lifecycle(view, items_before=AT, windows_before=AT + timedelta(days=9), events_before=AT)
            seen.append((wrong, late.windows))
    assert seen[0] == seen[1]
    assert seen[0][0].examples[0].startswith("2026-11-22 10:00:00Z user ")
    assert seen[0][1].examples[0].startswith("window 2026-11-22 10:00:00Z customer ")
